"""Command lines from dataclasses: each option is said once, with its type, its default and what it is for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
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
            group.add_argument(flag(each.name), **_argument(each, kinds[each.name].__origin__, told))


def add_owned_options(parser: argparse.ArgumentParser, owned: Mapping[str, type[Any]]) -> list[str]:
    """Add options that are not for everybody, under headings that say whose they are.

    What is not given is absent from what argparse returns, for owners of one option may have defaults of their own.

    Args:
        parser: The command line.
        owned: Owners, as they are called in headings, with the dataclasses of their options; every field is annotated with an
            `Option` and has a default. Owners of one name share one option, whose type and help are those of the first.

    Returns:
        The names that they are parsed to.
    """
    owners_of: dict[str, dict[str, tuple[Option, dict[str, Any]]]] = {}
    for owner, options in owned.items():
        kinds = get_type_hints(options, include_extras=True)
        for each in fields(options):
            (option,) = kinds[each.name].__metadata__
            owners_of.setdefault(each.name, {})[owner] = option, _argument(each, kinds[each.name].__origin__, option)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, owners in owners_of.items():
        heading = f"of {' and '.join(owners)}"
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        option, argument = next(iter(owners.values()))
        defaults = {owner: str(told["default"]) for owner, (_, told) in owners.items()}
        alike = len(set(defaults.values())) == 1
        default = next(iter(defaults.values())) if alike else ", ".join(f"{owner}: {told}" for owner, told in defaults.items())
        shown = option.help.replace("%(default)s", default)
        groups[heading].add_argument(flag(name), **{**argument, "help": shown, "default": argparse.SUPPRESS})
    return list(owners_of)


def flag(name: str) -> str:
    """A field's name as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


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
