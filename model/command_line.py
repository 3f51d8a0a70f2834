"""Command lines from dataclasses: each option is said once, with its type, its default and what it is for."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, Field, dataclass, fields
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True)
class Option:
    """What the command line says of a field besides its name, type and default; of a list one can give several."""

    help: str
    metavar: str | None = None
    opposite: bool = False
    """Of a switch: there is `--no-...` too."""
    group: str | None = None
    """The heading in `--help` that it, and those after it, stand under."""


def add_options(parser: argparse.ArgumentParser, options: type[Any]) -> None:
    """Add the options that are the fields of a dataclass.

    Args:
        parser: The command line.
        options: The dataclass. A field `Annotated[TYPE, Option(...)]` is an option of its name. A function in the place of the
            `Option` is called to add several, for this field and others that are annotated with their type alone.
    """
    group: argparse._ActionsContainer = parser
    kinds = get_type_hints(options, include_extras=True)
    for each in fields(options):
        for told in getattr(kinds[each.name], "__metadata__", ()):
            if not isinstance(told, Option):
                told(group)
                continue
            if told.group:
                group = parser.add_argument_group(told.group)
            group.add_argument(f"--{each.name.replace('_', '-')}", **_argument(each, kinds[each.name].__origin__, told))


def _argument(each: Field[Any], kind: Any, option: Option) -> dict[str, Any]:
    """What argparse is to know of a field of type `kind`."""
    told: dict[str, Any] = {"help": option.help}
    if each.default_factory is not MISSING:
        told |= {"action": "append", "default": each.default_factory()}
        (kind,) = get_args(kind)
    elif each.default is MISSING:
        told["required"] = True
    else:
        told["default"] = each.default
    if isinstance(kind, UnionType):
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return {**told, "choices": list(get_args(kind))}
    if kind is bool:
        return {**told, "action": argparse.BooleanOptionalAction if option.opposite else "store_true"}
    return {**told, "type": kind, "metavar": option.metavar}
