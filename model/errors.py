"""Errors that several jobs share; each message names the cause and the cure."""


class DataError(ValueError):
    """A data folder is missing or malformed."""


class DivergedError(RuntimeError):
    """Training has left the numbers: a loss or gradient is nan or infinite."""
