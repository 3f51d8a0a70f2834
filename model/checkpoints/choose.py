"""From what a user names (a model, a file with an architecture, weights) to an architecture or a network."""

from __future__ import annotations

from pathlib import Path

from model.checkpoints.loading import load, read_weights, weights_path
from model.errors import ConfigError
from model.recognisers.interface import Config, Network
from model.recognisers.registry import hyphenated, named_config, named_configs, read_config


def choose_config(model: str | None, config: Path | None, weights: str | Path | None = None) -> Config | None:
    """The architecture that is named, by the first that is given; None if nothing tells it.

    Args:
        model: An architecture's name.
        config: A JSON file with an architecture, which wins over the name.
        weights: A weights file, or the name of an architecture with weights; it need not tell its architecture.

    Raises:
        ConfigError, WeightsError: There is none of that name, or a file cannot be used.
    """
    if config is not None:
        return read_config(config)
    if model is not None:
        return named_config(model)
    if weights is None:
        return None
    return named_config(str(weights)) if names_network(weights) else read_weights(Path(weights))[1]


def choose_network(
    model: str | None, config: Path | None, weights: str | Path | None, default: str | None = None
) -> tuple[Network, Path | None]:
    """The network that is named, and the file its weights are from.

    Without `weights` those of `model` are taken, bundled or published; a `config` alone gives random ones.

    Args:
        model: An architecture's name.
        config: A JSON file with an architecture, which wins over the name.
        weights: A weights file.
        default: Taken for `model` where nothing is named at all.

    Raises:
        ConfigError, WeightsError, DownloadError: See `model.checkpoints.loading.load`; or nothing is named.
    """
    if weights is None and config is None:
        model = model or default
        if model is None:
            raise ConfigError("give --weights FILE, or --model NAME for its bundled or published weights")
        weights = weights_path(model)
    network = load(model, config=None if config is None else read_config(config), weights=weights)
    return network, None if weights is None else Path(weights)


def names_network(weights: str | Path) -> bool:
    """Whether `weights` is the name of an architecture, not of a file."""
    return hyphenated(str(weights)) in named_configs() and not Path(weights).is_file()


def weights_file(weights: str | Path) -> Path:
    """The file of weights that are given by the name of a network or of a file.

    Raises:
        DownloadError: They are published and cannot be had.
    """
    return weights_path(str(weights)) if names_network(weights) else Path(weights)


def name_of(config: Config) -> str | None:
    """The name of the architecture that `config` is, whatever charset and label length it is for."""
    apart = config.FREE | config.ADAPTABLE
    for name, known in named_configs().items():
        if known.RECOGNISER == config.RECOGNISER and _without(known, apart) == _without(config, apart):
            return name
    return None


def _without(config: Config, names: frozenset[str]) -> dict[str, object]:
    return {name: value for name, value in config.to_dict().items() if name not in names}
