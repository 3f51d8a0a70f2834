"""Reads pickles without running anything: what a pickle would call becomes a note of the call.

A pickle is a program for a small stack machine (Python's `pickletools` describes its steps). Python's own reader imports what
the program names, and calls it. This one does neither: a name stays a `Name`, a call becomes a `Made`, a reference to data
outside the pickle a `Persistent`. Whoever reads the result decides what these mean.

Of the file's values only strings and small numbers are hashed, and none is compared, printed or walked through, so neither
nesting nor collisions can stop the reader; its work is bounded by the number of opcodes.
"""

from __future__ import annotations

import io
import pickletools  # nosec B403  # names opcodes, and runs none of them
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

MAX_OPCODES: Final = 2_000_000
"""They take some seconds and half a gigabyte at worst; a checkpoint of PARSeq has about 30,000."""


class PickleError(ValueError):
    """Not a pickle, a damaged one, or one with more than `MAX_OPCODES`."""


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """A class or function that a pickle names; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        """The dotted name as it is written in Python."""
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False, repr=False)
class Made:
    """An object that a pickle would make by a call: what would be called, with which arguments, and what it would hold."""

    of: Any
    """What would be called: a `Name`, in honest pickles."""
    args: Any
    state: Any = None
    """The argument of `__setstate__`, or the `__dict__`."""
    entries: dict[Any, Any] = field(default_factory=dict)
    """Entries set by key, as in mappings."""
    members: list[Any] = field(default_factory=list)
    """Members appended, as to sequences and sets."""

    @property
    def called(self) -> str:
        """The dotted name of what would be called; empty if it has none. (Old PyTorch wraps the classes of modules.)"""
        of = self.of
        if isinstance(of, Persistent) and isinstance(of.id, tuple) and len(of.id) > 1:
            of = of.id[1]
        return str(of) if isinstance(of, Name) else ""


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """A reference to data outside the pickle, such as the numbers of a tensor."""

    id: Any


class OddKey:
    """Stands for a key of a mapping that is not a string; it equals no other key."""


@dataclass(frozen=True, slots=True)
class Pickle:
    """What one pickle holds."""

    value: Any
    """Of None, booleans, numbers, strings, bytes, lists (sets too), tuples, dicts, `Name`, `Made` and `Persistent`."""
    references: list[Persistent]
    """All references in the pickle, in order."""


def read_pickle(stream: io.BytesIO) -> Pickle:
    """Read one pickle, up to its end in `stream`.

    Raises:
        PickleError: It cannot be read.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count >= MAX_OPCODES:
                raise PickleError(f"it has more than {MAX_OPCODES} steps")
            if opcode.name == "STOP":
                return Pickle(machine.stack.pop(), machine.references)
            machine.do(opcode.name, argument)
    except PickleError:
        raise
    except Exception:  # foreign bytes may raise any exception
        raise PickleError("no pickle, or a broken one") from None
    raise PickleError("it has no end")


_PUSHED: Final = frozenset(
    # Their argument is the value.
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_FIXED_TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NEW_LISTS: Final = frozenset({"EMPTY_LIST", "EMPTY_SET"})
_MARKED_LISTS: Final = frozenset({"LIST", "FROZENSET"})
_GET: Final = frozenset({"GET", "BINGET", "LONG_BINGET"})
_PUT: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_EXTENSIONS: Final = frozenset({"EXT1", "EXT2", "EXT4"})
_NOTHING: Final = frozenset({"PROTO", "FRAME"})


class _Machine:
    """The stack machine of pickles, whose calls do nothing."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        """The stacks below the marks."""
        self.memo: dict[int, Any] = {}
        self.references: list[Persistent] = []
        self._steps: dict[str, Callable[[], None]] = {
            "MARK": self._mark,
            "POP": self._pop,
            "POP_MARK": self._drop_marked,
            "DUP": lambda: self.stack.append(self.stack[-1]),
            "TUPLE": lambda: self._push(tuple(self._marked())),
            "DICT": self._dict,
            "EMPTY_DICT": lambda: self._push({}),
            "APPEND": lambda: self._extend([self.stack.pop()]),
            "APPENDS": lambda: self._extend(self._marked()),
            "ADDITEMS": lambda: self._extend(self._marked()),
            "SETITEM": lambda: self._set([self.stack.pop(-2), self.stack.pop()]),
            "SETITEMS": lambda: self._set(self._marked()),
            "STACK_GLOBAL": lambda: self._push(_name(self.stack.pop(-2), self.stack.pop())),
            "REDUCE": lambda: self._push(Made(self.stack.pop(-2), self.stack.pop())),
            "NEWOBJ": lambda: self._push(Made(self.stack.pop(-2), self.stack.pop())),
            "NEWOBJ_EX": lambda: self._push(Made(self.stack.pop(-3), (self.stack.pop(-2), self.stack.pop()))),
            "OBJ": self._object,
            "BUILD": self._build,
            "MEMOIZE": lambda: self._remember(len(self.memo)),
            "BINPERSID": lambda: self._refer(self.stack.pop()),
        }

    def do(self, opcode: str, argument: Any) -> None:
        """Execute one opcode."""
        if opcode in _PUSHED:
            self._push(argument)
        elif opcode in _PUT:
            self._remember(argument)
        elif opcode in _GET:
            self._push(self.memo[argument])
        elif opcode in self._steps:
            self._steps[opcode]()
        elif opcode in _CONSTANTS:
            self._push(_CONSTANTS[opcode])
        elif opcode in _FIXED_TUPLES:
            count = _FIXED_TUPLES[opcode]
            if len(self.stack) < count:
                raise PickleError("it takes more than there is")
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif opcode == "GLOBAL":
            self._push(_name(*argument.split(" ", 1)))
        elif opcode == "INST":
            self._push(Made(_name(*argument.split(" ", 1)), tuple(self._marked())))
        elif opcode == "PERSID":
            self._refer(argument)
        elif opcode in _NEW_LISTS:
            self._push([])
        elif opcode in _MARKED_LISTS:
            self._push(self._marked())
        elif opcode in _EXTENSIONS:
            self._push(Name("copyreg", f"extension_{argument}"))
        elif opcode not in _NOTHING:
            raise PickleError(f"it has a step {opcode}, which files do not have")

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def _marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        found, self.stack = self.stack, self.outer.pop()
        return found

    def _drop_marked(self) -> None:
        self._marked()

    def _pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.stack = self.outer.pop()

    def _dict(self) -> None:
        found = self._marked()
        self._push({})
        self._set(found)

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        (target.members if isinstance(target, Made) else _list(target)).extend(values)

    def _set(self, flat: list[Any]) -> None:
        """Set entries, given keys and values in turn. Only strings stay keys: others may be unhashable or made to collide."""
        target = self.stack[-1]
        table = target.entries if isinstance(target, Made) else target
        if not isinstance(table, dict) or len(flat) % 2:
            raise PickleError("it sets entries of what has none")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            table[key if type(key) is str else OddKey()] = value

    def _object(self) -> None:
        of, *args = self._marked()
        self._push(Made(of, tuple(args)))

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Made):
            self.stack[-1].state = state

    def _remember(self, place: int) -> None:
        if not 0 <= place <= MAX_OPCODES:
            raise PickleError("it remembers more than it holds")
        self.memo[place] = self.stack[-1]

    def _refer(self, identity: Any) -> None:
        self.references.append(Persistent(identity))
        self._push(self.references[-1])


def _name(module: Any, name: Any) -> Name:
    if type(module) is not str or type(name) is not str:
        raise PickleError("it names something without a name")
    return Name(module, name)


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise PickleError("it appends to what is no list")
    return value
