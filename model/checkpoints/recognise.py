"""Recognises the network in a table of tensors: where it is and of which recogniser, by names; how large it is, by shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from model.charsets import CHARSETS
from model.checkpoints.agreement import part_of
from model.errors import LONGEST_SHOWN, ConfigError, WeightsError
from model.recognisers.interface import Config
from model.recognisers.registry import Recogniser, candidates, recognisers

WRAPPERS: Final = frozenset({"module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that data parallelism, sharding and compilation add to whatever they wrap; no recogniser uses them."""
HOLDERS: Final = WRAPPERS | {"model", "net", "network"}
"""Parts that precede the names of networks that are not known here."""
AVERAGES: Final = frozenset(
    {"ema", "ema_model", "model_ema", "module_ema", "state_dict_ema", "ema_state_dict", "swa_model", "average_model"}
)
"""Names that training systems give to an average of the weights, kept beside the weights."""

Parts = tuple[str, ...]
Value = TypeVar("Value")


def own_tensors(table: Mapping[str, Value], source: str) -> dict[str, Value]:
    """The entries of the network, under its own names.

    Prefixes are left out: names of training systems, and of wrappers around a network or its parts. Where a file holds weights
    and their average, the average is taken.

    Args:
        table: Entries by name.
        source: The file, for messages.

    Raises:
        WeightsError: There are none, or those of several networks.
    """
    if not table:
        raise WeightsError(f"{source} holds no tensors: fetch or save it again")
    split = {name: tuple(name.split(".")) for name in table}
    places = networks_in(split.values())
    if len(places) > 1:
        averages = [place for place in places if not AVERAGES.isdisjoint(place)]
        places = {place: places[place] for place in averages} or places
    if len(places) > 1:
        prefixes = " and ".join(f"{'.'.join(place)!r:{LONGEST_SHOWN}}" for place in list(places)[:2])
        more = " and others" if len(places) > 2 else ""
        raise WeightsError(
            f"{source} holds several networks, with the prefixes {prefixes}{more}: keep the weights of one in it"
        )
    before = Counter(tuple(takewhile(HOLDERS.__contains__, parts)) for parts in split.values())
    [place] = places or [before.most_common(1)[0][0]]
    own: dict[str, Value] = {}
    for name, parts in split.items():
        bare = _bare(parts[len(place) :])
        if parts[: len(place)] != place or not bare:
            continue
        if bare in own:
            told = f"{bare!r:{LONGEST_SHOWN}} twice, once as {name!r:{LONGEST_SHOWN}}"
            raise WeightsError(f"{source} holds {told}: keep the weights of one network in it")
        own[bare] = table[name]
    return own


def networks_in(names: Iterable[Parts]) -> dict[Parts, list[Recogniser]]:
    """The prefixes under which known networks are found, and the recognisers that each may be of.

    Args:
        names: The parts of each name.

    Returns:
        In the order of the registry. A network that is a part of another one is not counted.
    """
    bare = [(_bare(parts), parts) for parts in names]
    places: dict[Parts, set[str]] = {}
    for key in sorted({key for entry in recognisers().values() for key in entry.keys}):
        for name, parts in bare:
            if name == key or name.endswith(f".{key}"):
                places.setdefault(_before(parts, key.count(".") + 1), set()).add(key)
    found = {place: entries for place, keys in places.items() if (entries := candidates(keys))}

    def is_part(place: Parts, entries: Sequence[Recogniser]) -> bool:
        around = (outer for outer in found if outer != place and place[: len(outer)] == outer)
        return any(entry not in found[outer] for outer in around for entry in entries)

    return {place: entries for place, entries in found.items() if not is_part(place, entries)}


def architecture_of(state: Mapping[str, Tensor], source: str) -> Config:
    """The architecture of weights that do not tell it: the named architecture with the same names and shapes of tensors.

    A standard charset of the right size is assumed. What no shape tells, such as the number of heads, is taken from the named
    architecture.

    Args:
        state: The network's tensors by name.
        source: The file, for messages.

    Raises:
        ConfigError: There is none.
        WeightsError: They are a part of one only.
    """
    entries = candidates(state)
    likely: Config | None = None
    for entry in entries:
        for named in entry.named.values():
            config, charset_known = _fitted(entry, named, state)
            if config is not None and charset_known:
                return config
            likely = likely or config
    if likely is not None:
        return likely
    _check_whole(entries or list(recognisers().values()), state, source)
    if not entries:
        known = ", ".join(entry.class_name for entry in recognisers().values())
        raise ConfigError(
            f"{source} does not tell its architecture, and its tensors have the names of no network that is known here "
            f"({known}): give the name of a network (--model) or a config (--config FILE.json)"
        )
    names = ", ".join(name for entry in entries for name in entry.named)
    raise ConfigError(
        f"{source} holds weights of {entries[0].class_name} and does not tell their architecture, whose sizes are none of "
        f"those with a name ({names}): give its config (--config FILE.json)"
    )


def _check_whole(entries: Iterable[Recogniser], state: Mapping[str, Tensor], source: str) -> None:
    """Check that tensors whose names and sizes only one of some recognisers has are all of a named architecture's.

    Raises:
        WeightsError: Some are missing.
    """
    missing: dict[str, tuple[Recogniser, list[str]]] = {}
    for entry in entries:
        for config in entry.named.values():
            with torch.device("meta"):
                wanted = entry.build_network(config).state_dict()
            # The first axis of some depends on the charset.
            if state.keys() < wanted.keys() and all(tensor.shape[1:] == wanted[key].shape[1:] for key, tensor in state.items()):
                missing.setdefault(entry.name, (entry, sorted(wanted.keys() - state.keys())))
    if len(missing) == 1:
        [(entry, names)] = missing.values()
        raise WeightsError(part_of(entry, names, source))


def _fitted(entry: Recogniser, config: Config, state: Mapping[str, Tensor]) -> tuple[Config | None, bool]:
    """`config` with the charset and label length of the weights; None if they cannot be of such a network.

    The second value is whether the charset is known, as the config's own or a standard one.
    """
    with torch.device("meta"):
        wanted = entry.build_network(config).state_dict()
    adapting = entry.adapting
    axes = {**adapting.by_character, **adapting.by_position}
    if wanted.keys() != state.keys() or not all(
        same_shape(value, state[name], axes.get(name)) for name, value in wanted.items()
    ):
        return None, False
    changes: dict[str, Any] = {}
    name, axis = adapting.classes
    characters = state[name].shape[axis] - (wanted[name].shape[axis] - len(config.charset_train))
    own = characters == len(config.charset_train)
    if not own and str(characters) in CHARSETS:
        changes["charset_train"] = CHARSETS[str(characters)]
    if "max_label_length" in config.__dataclass_fields__:
        for name, axis in list(adapting.by_position.items())[:1]:
            changes["max_label_length"] = state[name].shape[axis] - 1
    try:
        return replace(config, **changes), own or "charset_train" in changes
    except ConfigError:
        return None, False


def same_shape(wanted: Tensor, found: Tensor, but: int | None) -> bool:
    """Whether two tensors have the same shape, the axis `but` apart."""
    return wanted.dim() == found.dim() and all(
        ours == theirs or axis == but for axis, (ours, theirs) in enumerate(zip(wanted.shape, found.shape, strict=True))
    )


def _bare(parts: Collection[str]) -> str:
    """A name without the parts that wrappers add."""
    return ".".join(part for part in parts if part not in WRAPPERS)


def _before(parts: Parts, count: int) -> Parts:
    """The parts before the last `count` parts of a name, which are counted without wrappers."""
    counted = [place for place, part in enumerate(parts) if part not in WRAPPERS]
    return parts[: counted[-count]]
