"""From what a user gives (a model's name, a file with an architecture, weights) to an architecture or a network."""

from __future__ import annotations

from pathlib import Path

from model.checkpoints.loading import load, network_with, read_weights, weights_path
from model.checkpoints.recognise import architecture_of
from model.errors import ConfigError
from model.recognisers.interface import Config, Network
from model.recognisers.registry import (
    Recogniser,
    candidates,
    hyphenated,
    named_config,
    named_configs,
    read_config,
    recogniser_of,
)


def choose_config(
    model: str | None, config: Path | None, weights: str | Path | None = None, of: Recogniser | None = None
) -> Config | None:
    """The architecture that is named; None if nothing is given.

    Args:
        model: An architecture's name.
        config: A JSON file with an architecture, which wins over the name.
        weights: A weights file, or the name of an architecture with weights.
        of: The recogniser of a config file that does not name it; None: that of the weights.

    Raises:
        ConfigError, WeightsError: The name is unknown, a file cannot be used, or weights do not tell their architecture.
    """
    if config is not None:
        return read_config(config, lambda: of or _recogniser_in(weights))
    if model is not None:
        return named_config(model)
    if weights is None:
        return None
    if names_network(weights):
        return named_config(str(weights))
    state, inside = read_weights(Path(weights))
    return inside or architecture_of(state, str(weights))


def _recogniser_in(weights: str | Path | None) -> Recogniser | None:
    if weights is None:
        return None
    if names_network(weights):
        return recogniser_of(named_config(str(weights)))
    return next(iter(candidates(read_weights(Path(weights))[0])), None)


def choose_network(
    model: str | None, config: Path | None, weights: str | Path | None, default: str | None = None
) -> tuple[Network, Path | None]:
    """The network that is named, and the file its weights are from.

    Without `weights` those of `model` are taken, bundled or published; a `config` alone gives random ones.

    Args:
        model: An architecture's name.
        config: A JSON file with an architecture, which wins over the name.
        weights: A weights file.
        default: Taken for `model` if nothing is given at all.

    Raises:
        ConfigError, WeightsError, DownloadError: See `model.checkpoints.loading.load`; or nothing is named.
    """
    if weights is None and config is None:
        model = model or default
        if model is None:
            raise ConfigError("give --weights FILE, or --model NAME for its bundled or published weights")
        weights = weights_path(model)
    if weights is None:
        return load(model, config=None if config is None else read_config(config)), None
    chosen = None if model is None and config is None else choose_config(model, config, weights)
    return network_with(*read_weights(Path(weights)), str(weights), chosen), Path(weights)


def names_network(weights: str | Path) -> bool:
    """Whether `weights` is the name of an architecture, not of a file."""
    return hyphenated(str(weights)) in named_configs() and not Path(weights).is_file()


def weights_file(weights: str | Path) -> Path:
    """The file of weights that are given as the name of a network or as a file.

    Raises:
        DownloadError: They are published but cannot be downloaded.
    """
    return weights_path(str(weights)) if names_network(weights) else Path(weights)


def name_of(config: Config) -> str | None:
    """The name of the architecture `config`, apart from its charset and label length."""
    apart = config.FREE | config.ADAPTABLE
    for name, known in named_configs().items():
        if known.RECOGNISER == config.RECOGNISER and _without(known, apart) == _without(config, apart):
            return name
    return None


def _without(config: Config, names: frozenset[str]) -> dict[str, object]:
    return {name: value for name, value in config.to_dict().items() if name not in names}
