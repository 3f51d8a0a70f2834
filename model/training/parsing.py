"""From the words of a command line, of files and of recipes to the options of a job and those of Lightning's Trainer."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import jsonargparse
import lightning
import yaml

from model.command_line import add_options, add_owned_options
from model.errors import ConfigError
from model.recognisers.registry import recognisers
from model.training.options import FORMER_RECIPES, RECIPES, TrainOptions, recipe_names

# Options that exclude each other: each place (file or command line) may give one of them, and the last place wins.
EXCLUSIVE: Final = (("steps", "epochs"), ("model", "config"))
TRAINER: Final = "trainer"
# Options of the Trainer that the job sets itself, with its own option for each.
TRAINER_TAKEN: Final = {
    "max_steps": "--steps",
    "max_epochs": "--epochs",
    "default_root_dir": "--output",
    "val_check_interval": "--validate-every",
}
Options = TypeVar("Options", bound=TrainOptions)


def build_parser(options: type[TrainOptions], prog: str, description: str | None) -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser for `options`, and the names of those parsed values that belong to recognisers."""
    parser = argparse.ArgumentParser(
        prog=prog,
        # The whole list of options above an error would bury it.
        usage=f"{prog} --output FOLDER [options] (--help lists them)",
        description=description,
        epilog="Any option of Lightning's Trainer besides: --trainer.precision bf16-mixed, --trainer.devices 2, "
        "--trainer.strategy ddp, --trainer.accumulate_grad_batches 4, --trainer.enable_progress_bar false, ...",
    )
    add_options(parser, options)
    own = {entry.class_name: entry.training_options for entry in recognisers().values() if entry.training_options}
    return parser, add_owned_options(parser, own)


def parse(
    options: type[Options], argv: list[str], prog: str = "parseq-train", description: str | None = None
) -> tuple[Options, dict[str, Any]]:
    """The job's options, and those for the Trainer that were given.

    Exits with a message, as argparse does, when an option is unknown or has a wrong value.

    Args:
        options: Which the job has.
        argv: The words of the command line.
        prog: The command.
        description: Of what it does, for `--help`.
    """
    parser, owned = build_parser(options, prog, description)
    try:
        files = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        files.add_argument("--run", action="append", default=[])
        chosen, rest = files.parse_known_args(argv)
        # The last one wins, so the files' options come first.
        levels = [*(read_run(name) for name in chosen.run), rest]
        overruled = overruled_options(levels)
        args, remaining = parser.parse_known_args([word for level in levels for word in level])
        for name in overruled:
            setattr(args, name, parser.get_default(name))
        args.run = chosen.run
        given = vars(args)
        own = {name: given.pop(name) for name in owned if name in given}
        return options(**given, of_recogniser=own), trainer_options(remaining)
    except ConfigError as error:
        parser.error(str(error))


def overruled_options(levels: Sequence[Sequence[str]]) -> set[str]:
    """Options of an excluding pair that are overruled, since a later file or the command line gives the other one.

    Args:
        levels: The words of each file and of the command line, in order.

    Raises:
        ConfigError: Both are given in one place.
    """
    overruled: set[str] = set()
    for pair in EXCLUSIVE:
        finder = argparse.ArgumentParser(add_help=False, exit_on_error=False)
        for name in pair:
            finder.add_argument(f"--{name}", nargs="?", const="")
        for words in levels:
            given = [name for name, value in vars(finder.parse_known_args(list(words))[0]).items() if value is not None]
            if len(given) > 1:
                raise ConfigError(f"--{given[0]} and --{given[1]} exclude each other: give one of them")
            if given:
                overruled -= set(given)
                overruled |= set(pair) - set(given)
    return overruled


def read_run(name: str) -> list[str]:
    """The options in a YAML file, or in a recipe of the project, as words of a command line.

    Raises:
        ConfigError: There is no such file, or it is not a mapping of options.
    """
    recipe = FORMER_RECIPES.get(name, name)
    path = RECIPES / f"{recipe}.yaml" if recipe in recipe_names() else Path(name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read the run file {path} ({error.strerror}); the project's own are called {', '.join(recipe_names())}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"the run file {path} is not valid YAML") from None
    if values is None:
        return []
    if not isinstance(values, dict) or not isinstance(values.get(TRAINER, {}), dict):
        raise ConfigError(
            f"the run file {path} must hold a mapping of options, those of the Trainer in a mapping under `{TRAINER}`"
        )
    trainer = {f"{TRAINER}.{key}": value for key, value in (values.pop(TRAINER, None) or {}).items()}
    if "run" in values:
        raise ConfigError(f"the run file {path} names another run file: give both on the command line")
    return [word for key, value in {**values, **trainer}.items() for word in _words(str(key), value)]


def _words(key: str, value: Any) -> list[str]:
    """One option of a file: `true` is a flag, a list repeats it (a list or mapping of the Trainer's is one value)."""
    if key.startswith(f"{TRAINER}."):
        return [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    option = "--" + key.replace("_", "-")
    if isinstance(value, list):
        return [word for item in value for word in _words(key, item)]
    if isinstance(value, bool):
        return [option if value else option.replace("--", "--no-", 1)]
    return [f"{option}={value}"]


@functools.cache
def _trainer_parser() -> jsonargparse.ArgumentParser:
    """Made once, since reading the signature of the Trainer takes long."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(lightning.Trainer, TRAINER, instantiate=False)
    return parser


def trainer_options(words: list[str]) -> dict[str, Any]:
    """Options `--trainer.NAME VALUE`, checked against the Trainer's own signature, plug-ins built.

    Raises:
        ConfigError: One is unknown, has a wrong value, or is set by an option of the job.
    """
    if not words:
        return {}
    parser = _trainer_parser()
    try:
        given = parser.parse_args(words, defaults=False)
        built = parser.instantiate(given)
    except (jsonargparse.ArgumentError, ValueError, TypeError) as error:
        raise ConfigError(str(error).strip().replace("\n", " ")) from None
    options = dict(vars(built[TRAINER])) if TRAINER in built else {}
    for name, instead in TRAINER_TAKEN.items():
        if options.get(name) is not None:
            raise ConfigError(f"--{TRAINER}.{name} is set by the job: use {instead}")
    return options
