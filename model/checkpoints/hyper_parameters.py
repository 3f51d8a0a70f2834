"""Settings in the pickles of training jobs: plain values out of the mappings, wrappers and numbers of other libraries.

Nothing of those libraries is imported: each of their objects is a note of its parts (`inert_pickle.Made`), in which the
values are looked for.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from model.checkpoints.inert_pickle import Made

CONTENT, VALUE = "_content", "_val"
"""Where OmegaConf's containers and nodes keep what they hold."""
DEEPEST: Final = 8
"""Wrappers around a value that are opened, at most."""
LARGEST: Final = 2**31
"""No setting is as large."""
_NUMPY_SCALARS: Final = frozenset({"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"})
_NUMPY_CODES: Final = frozenset({"i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "b1"})


def entries(value: Any) -> dict[Any, Any] | None:
    """The names and values of a mapping, namespace, data class or container of OmegaConf; None for anything else."""
    for _ in range(DEEPEST):
        if isinstance(value, dict):
            return value
        if not isinstance(value, Made):
            return None
        items, attributes = {**_pairs(value.args), **value.entries}, _attributes(value)
        # Attributes of a mapping, such as the versions of a state dict, are not entries.
        if items or not isinstance(attributes.get(CONTENT), dict | Made):
            return items or attributes or None
        value = attributes[CONTENT]
    return None


def _attributes(made: Made) -> dict[Any, Any]:
    """What `__setstate__` would put into an object; objects with slots have a second mapping."""
    parts = made.state if isinstance(made.state, tuple) else (made.state,)
    return {name: value for part in parts[:2] if isinstance(part, dict) for name, value in part.items()}


def _pairs(args: Any) -> dict[Any, Any]:
    """The entries that old pickles give an OrderedDict as its argument."""
    pairs = args[0] if isinstance(args, tuple) and len(args) == 1 else None
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        return {}
    return {pair[0]: pair[1] for pair in pairs if type(pair[0]) is str}


def read_scalar_or_pair(value: Any) -> Any:
    """A setting as Python's own boolean, number, string, None, or list of two such.

    Raises:
        ValueError: It is anything else.
    """
    value = _unwrapped(value)
    members = value.members if isinstance(value, Made) else value
    if not isinstance(members, list | tuple):
        return _scalar(value)
    if len(members) != 2:
        raise ValueError("not a pair")
    return [_scalar(_unwrapped(member)) for member in members]


def _unwrapped(value: Any) -> Any:
    """What is inside the wrappers of other libraries."""
    for _ in range(DEEPEST):
        if not isinstance(value, Made):
            return value
        attributes = _attributes(value)
        if VALUE in attributes:
            value = attributes[VALUE]
        elif CONTENT in attributes:
            value = attributes[CONTENT]
        elif value.called in _NUMPY_SCALARS:
            return _numpy_scalar(value.args)
        elif isinstance(value.args, tuple) and len(value.args) == 1 and isinstance(value.args[0], list | tuple):
            value = value.args[0]  # torch.Size, and sequences of other classes
        else:
            return value
    return value


def _scalar(value: Any) -> bool | int | float | str | None:
    if value is None or type(value) in (bool, float, str) or (type(value) is int and abs(value) < LARGEST):
        plain: bool | int | float | str | None = value
        return plain
    raise ValueError("not a plain value")


def _numpy_scalar(args: Any) -> Any:
    """The number or text of a call `scalar(dtype(code, ...), bytes)`; None for anything else."""
    if not isinstance(args, tuple) or len(args) != 2 or not isinstance(args[0], Made):
        return None
    kind, held = args[0], _bytes(args[1])
    code = kind.args[0] if isinstance(kind.args, tuple) and kind.args else None
    order = kind.state[1] if isinstance(kind.state, tuple) and len(kind.state) > 1 else "<"
    if held is None or type(code) is not str or order not in ("<", ">", "|", "="):
        return None
    if code in _NUMPY_CODES:
        numbers = np.frombuffer(held, np.dtype((">" if order == ">" else "<") + code))
        return numbers[0].item() if len(numbers) == 1 else None
    if code.startswith("U"):
        return held.decode("utf-32-be" if order == ">" else "utf-32-le", "strict").rstrip("\0")
    return None


def _bytes(value: Any) -> bytes | None:
    """Bytes; the pickles of PyTorch spell them as a call `encode(text, "latin1")`."""
    if isinstance(value, Made) and value.called == "_codecs.encode":
        text = value.args[0] if isinstance(value.args, tuple) and value.args else None
        if type(text) is not str:
            return None
        value = text.encode("latin-1", "replace")
    # Very old pickles have strings.
    if type(value) is str:
        return value.encode("latin-1", "replace")
    return value if type(value) is bytes else None
