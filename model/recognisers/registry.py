"""The recognisers there are. Each is a folder beside this file whose package holds an entry called `RECOGNISER`.

Nothing here imports torch: networks are imported when one is built.
"""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from artifact.files import BUNDLED_MODEL
from model.errors import LONGEST_SHOWN, ConfigError

if TYPE_CHECKING:
    from model.recognisers.interface import Config, Network, Training

DEFAULT_MODEL: Final = BUNDLED_MODEL
"""The network that is used if none is named. A configuration that names no recogniser belongs to this network's."""
RECOGNISER: Final = "recogniser"
"""Key under which configurations and checkpoints name their recogniser."""
CLASS_KEYS: Final = ("_target_", "cls")
FOREIGN: Final = (*CLASS_KEYS, "name")
"""Keys under which those of the reference implementation name it, the first two by its class."""

RELEASE: Final = "https://github.com/baudm/parseq/releases/download/v1.0.0"


@dataclass(frozen=True, slots=True)
class Published:
    """A weights file on the network."""

    url: str
    sha256: str
    """The first digits of the file's SHA-256."""

    @property
    def file_name(self) -> str:
        """What the file is called."""
        return self.url.rpartition("/")[2]


def released(file_name: str) -> Published:
    """A file of the reference implementation's release 1.0.0, whose name ends with the first digits of its hash."""
    return Published(f"{RELEASE}/{file_name}", file_name.removesuffix(".pt").rpartition("-")[2])


@dataclass(frozen=True, slots=True)
class Adapting:
    """Tensors that depend on the charset or on the label length, with the axis along which they do."""

    by_character: Mapping[str, int]
    """Tensors with one row per class; the first one has exactly the classes that the network can give."""
    by_position: Mapping[str, int] = field(default_factory=dict)
    """Tensors with one row per position of a text, its end included; some configurations of a network need not have them."""

    @property
    def classes(self) -> tuple[str, int]:
        """Name and axis of the tensor that tells how many characters a network knows."""
        return next(iter(self.by_character.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recogniser:
    """A kind of network, and all that belongs to it."""

    name: str
    class_name: str
    """What the reference implementation calls its class; the last part of `_target_` in checkpoints."""
    config: type[Config]
    network: str
    """Where its `Network` is, as `package.module:Class`: imported when it is needed."""
    training: str
    """Where its `Training` is, likewise."""
    named: Mapping[str, Config]
    """Its architectures by name."""
    published: Mapping[str, Published] = field(default_factory=dict)
    """Published weights of some of these architectures, by name."""
    keys: frozenset[str]
    """Names of tensors, at least one, that together tell its state dicts from those of other recognisers."""
    essential: frozenset[str]
    """Fields that a checkpoint's configuration must have to tell the architecture."""
    adapting: Adapting
    recipe: str
    """The recipe of `parseq-train` (model/recipes) that trains it as the reference implementation does."""
    training_options: type[Any] | None = None
    """Options of `parseq-train` for this recogniser only: a frozen, keyword-only data class whose fields are annotated with
    `model.command_line.Option`, in a module without torch. Its `Training` takes them by these names."""

    def build_network(self, config: Config) -> Network:
        """A network with random weights."""
        network: Network = pkgutil.resolve_name(self.network)(config)
        return network

    def build_training(self, network: Network, options: Mapping[str, Any]) -> Training:
        """How `network` learns, with the recogniser's own options."""
        training: Training = pkgutil.resolve_name(self.training)(network, **options)
        return training


@functools.cache
def recognisers() -> dict[str, Recogniser]:
    """All recognisers by name. The dict is shared: `register` adds to it."""
    from model import recognisers as folder

    packages = [found.name for found in pkgutil.iter_modules(folder.__path__) if found.ispkg]
    modules = [importlib.import_module(f"{folder.__name__}.{name}") for name in sorted(packages)]
    entries = [module.RECOGNISER for module in modules if hasattr(module, "RECOGNISER")]
    return {entry.name: entry for entry in entries}


def register(recogniser: Recogniser) -> None:
    """Add a recogniser that lives elsewhere.

    Raises:
        ValueError: Its name, or the name of one of its networks, is taken.
    """
    taken = recognisers().keys() & {recogniser.name} or named_configs().keys() & recogniser.named.keys()
    if taken:
        raise ValueError(f"there is a recogniser or network called {min(taken)} already")
    recognisers()[recogniser.name] = recogniser


def recogniser_of(config: Config) -> Recogniser:
    """The recogniser that `config` is for."""
    return recognisers()[config.RECOGNISER]


def named_configs() -> dict[str, Config]:
    """All architectures that have a name."""
    return {name: config for recogniser in recognisers().values() for name, config in recogniser.named.items()}


def named_config(name: str) -> Config:
    """The architecture called `name`; underscores and hyphens are the same.

    Raises:
        ConfigError: There is none of that name.
    """
    configs = named_configs()
    try:
        return configs[hyphenated(name)]
    except KeyError:
        raise ConfigError(f"unknown model {name!r}: choose one of {', '.join(configs)}, or give a config file") from None


def hyphenated(name: str) -> str:
    """The name of an architecture with hyphens, as it is listed."""
    return name.replace("_", "-")


def published_files() -> dict[str, Published]:
    """All weights on the network, by the name of their architecture."""
    return {name: file for recogniser in recognisers().values() for name, file in recogniser.published.items()}


def default_recogniser() -> Recogniser:
    """The recogniser of `DEFAULT_MODEL`."""
    return recogniser_of(named_config(DEFAULT_MODEL))


def named_in(values: Mapping[str, Any]) -> Recogniser | None:
    """The recogniser that the settings of a job or network name; None if they name none that is known."""
    entries = recognisers()
    known = {
        ("name", each): entry for entry in entries.values() for name in entry.named for each in (name, name.replace("-", "_"))
    }
    known |= {(key, name): entry for name, entry in entries.items() for key in (RECOGNISER, "name")}
    known |= {(key, entry.class_name): entry for entry in entries.values() for key in CLASS_KEYS}
    told = ((key, str(values.get(key)).rpartition(".")[2]) for key in (RECOGNISER, *FOREIGN))
    return next((known[pair] for pair in told if pair in known), None)


def candidates(tensors: Collection[str]) -> list[Recogniser]:
    """The recognisers whose state dicts may have these names: all of a recogniser's `keys` are there, and no larger set is."""
    found = [entry for entry in recognisers().values() if entry.keys.issubset(tensors)]
    return [entry for entry in found if not any(entry.keys < other.keys for other in found)]


def read_config(path: Path, unless_told: Callable[[], Recogniser | None] = lambda: None) -> Config:
    """Read a JSON file: an object of a configuration's names, or one that holds such an object under `system_args`.

    `recogniser` (or, as in the reference implementation, `cls`, `_target_` or `name`) among them tells the recogniser.

    Args:
        path: The file.
        unless_told: Gives the recogniser if the file does not; if that is None, it is the default model's.

    Raises:
        ConfigError: The file is missing, is not JSON, or does not describe a network.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"the config file {path} is not valid JSON") from None
    if not isinstance(values, dict):
        raise ConfigError(f"the config file {path} must hold a JSON object")
    told = values.get(RECOGNISER)
    if told is not None and (not isinstance(told, str) or told not in recognisers()):
        raise ConfigError(
            f"the config file {path} names the recogniser {told!r:{LONGEST_SHOWN}}; there are {', '.join(recognisers())}"
        )
    inner = values["system_args"] if isinstance(values.get("system_args"), dict) else values
    entry = named_in(values) or named_in(inner)
    for name in (str(values.get(key, "")).rpartition(".")[2] for key in CLASS_KEYS):
        if entry is None and name:
            classes = ", ".join(each.class_name for each in recognisers().values())
            raise ConfigError(f"the config file {path} names the class {name!r:{LONGEST_SHOWN}}; there are {classes}")
    entry = entry or unless_told() or default_recogniser()
    return entry.config.from_mapping({name: value for name, value in inner.items() if name not in (RECOGNISER, *FOREIGN)})
