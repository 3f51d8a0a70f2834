"""Errors that several jobs share; each message names the cause and the cure."""


class ConfigError(ValueError):
    """A configuration is not one this version can build."""


class DataError(ValueError):
    """A data folder is missing or malformed."""


class WeightsError(ValueError):
    """A weights file is unreadable or belongs to another network."""


class DivergedError(RuntimeError):
    """Training has left the numbers: a loss or gradient is nan or infinite."""
