"""The options of `parseq-train`: its own, any of Lightning's Trainer, and files of both."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import lightning
import yaml

from model.errors import ConfigError
from model.options import add_label_options
from model.recognisers.registry import DEFAULT_MODEL, named_configs

# Two ways of saying one thing: in one place only one of them, and the last place wins.
EXCLUSIVE = (("steps", "epochs"), ("model", "config"))
RECIPES = Path(__file__).parent.parent / "recipes"
TRAINER = "trainer"
# What only the job can know; `parseq-train` has options of its own for them.
TRAINER_TAKEN = {
    "max_steps": "--steps",
    "max_epochs": "--epochs",
    "default_root_dir": "--output",
    "val_check_interval": "--validate-every",
}


def build_parser(prog: str = "parseq-train", description: str | None = None) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=prog,
        # The whole list of options above each error would bury it.
        usage=f"{prog} --output FOLDER [options] (--help lists them)",
        description=description,
        epilog="Any option of Lightning's Trainer besides: --trainer.precision bf16-mixed, --trainer.devices 2, "
        "--trainer.strategy ddp, --trainer.accumulate_grad_batches 4, --trainer.enable_progress_bar false, ...",
    )
    parser.add_argument(
        "--run",
        metavar="FILE.yaml",
        action="append",
        default=[],
        help=f"options from a file, or a recipe: {', '.join(recipe_names())}; the command line wins; repeat",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints, logs and weights")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --output")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    _add_network(parser.add_argument_group("network"))
    _add_data(parser.add_argument_group("data"))
    _add_training(parser.add_argument_group("training"))
    return parser


def _add_network(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        help=f"architecture: {', '.join(named_configs())} (default: that of --weights or of the run, else {DEFAULT_MODEL})",
    )
    group.add_argument("--config", type=Path, metavar="FILE.json", help="architecture from a JSON file instead")
    group.add_argument("--charset", metavar="36|62|94|FILE", help="characters to read: a standard set, or those of a text file")
    group.add_argument("--add-characters", metavar="CHARACTERS", default="", help="characters to read besides, such as 'äöü '")
    group.add_argument("--max-label-length", type=int, help="characters of the longest label (default: the architecture's)")
    group.add_argument(
        "--weights",
        metavar="NAME|FILE",
        help="begin with these weights instead of random ones: those of a released or the bundled network, or a file",
    )


def _add_data(group: argparse._ArgumentGroup) -> None:
    many: dict[str, Any] = {"type": Path, "action": "append", "default": []}
    group.add_argument(
        "--source",
        metavar="WHAT[=WEIGHT]",
        action="append",
        default=[],
        help="train on this, in a share of each batch that follows from the weights (1): an LMDB or a folder of such, a folder "
        "with a file of labels, a folder of rendered crops, or the word `render`; repeat",
    )
    group.add_argument("--data-root", type=Path, metavar="FOLDER", help="holds train/, val/ and test/")
    group.add_argument("--train-dir", metavar="NAME", help="train on all below train/NAME of --data-root: real, synth, ...")
    group.add_argument("--synthetic", **many, help="folder of rendered crops (python -m model.synth); repeat")
    group.add_argument("--render", action="store_true", help="render crops beside the training, never the same twice")
    group.add_argument("--real", **many, help="LMDB of real crops, or a folder of such; every tenth is for validation; repeat")
    group.add_argument(
        "--real-caseless", **many, help="LMDB whose labels do not tell the case: only its crops without letters are used"
    )
    group.add_argument("--real-share", type=float, default=0.16, help="share of real crops in a batch (%(default)s)")
    group.add_argument("--synthetic-validation", type=Path, help="folder of rendered crops to validate on")
    group.add_argument("--validation", **many, help="crops to validate on, as --source (default: val/ of --data-root); repeat")
    group.add_argument("--render-fonts", **many, help="folder of fonts to render with (default: the installed ones); repeat")
    group.add_argument(
        "--render-words", type=Path, metavar="FILE", help="words to render, one a line (default: the dictionaries)"
    )
    group.add_argument(
        "--render-wide",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="render more of what is rare (python -m model.synth --help), crops without text too if --keep-empty (default: no)",
    )
    add_label_options(group)
    group.add_argument(
        "--lazy",
        action=argparse.BooleanOptionalAction,
        help="decode crops when they are needed instead of holding them in memory (default: with RandAugment, or when they "
        "would fill a quarter of the memory)",
    )
    group.add_argument("--workers", type=int, help="processes that load data (default: 0 if all is in memory, else up to 4)")
    group.add_argument(
        "--augment",
        choices=["fast", "reference", "none"],
        default="fast",
        help="fast: jitter and warp whole batches; reference: RandAugment of each crop (%(default)s)",
    )
    group.add_argument(
        "--augment-real",
        choices=["reference", "none"],
        default="none",
        help="RandAugment of crops that are not rendered, whatever --augment says (%(default)s)",
    )


def _add_training(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--steps", type=int, default=6000, help="steps in all, those before a resume included (%(default)s)")
    group.add_argument("--epochs", type=float, help="instead: times that all crops of the sources are seen")
    group.add_argument("--batch-size", type=int, default=64, help="crops a step and device (%(default)s)")
    group.add_argument("--lr", type=float, default=1.5e-3, help="peak learning rate (%(default)s)")
    group.add_argument(
        "--scale-lr",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="take --lr as the rate for 256 crops, and scale it by batch, devices and accumulation as the reference does",
    )
    group.add_argument("--weight-decay", type=float, default=0.01, help="of AdamW (%(default)s)")
    group.add_argument("--schedule", choices=["constant", "onecycle"], default="constant", help="(%(default)s)")
    group.add_argument("--warmup-steps", type=int, default=300, help="constant: steps of linear warm-up (%(default)s)")
    group.add_argument(
        "--decay-fraction", type=float, default=0.25, help="constant: share of the steps that decay the rate (%(default)s)"
    )
    group.add_argument("--warmup-fraction", type=float, default=0.075, help="onecycle: share that warms up (%(default)s)")
    group.add_argument("--glyph-weight", type=float, default=1.0, help="weight of the glyph-centre loss (%(default)s)")
    group.add_argument(
        "--ctc-weight", type=float, default=0.0, help="weight of a CTC loss over the encoder's columns (%(default)s: none)"
    )
    group.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="compile the encoder for training: a minute at the start, faster steps; needs a C++ compiler (default: no)",
    )
    group.add_argument(
        "--average",
        choices=["none", "ema", "swa"],
        default="none",
        help="average of the weights to validate and save (%(default)s)",
    )
    group.add_argument(
        "--average-from", type=float, default=0.0, help="share of the steps before averaging begins (%(default)s)"
    )
    group.add_argument("--ema-decay", type=float, default=0.999, help="of the exponential average (%(default)s)")
    group.add_argument("--validate-every", type=int, default=500, help="steps between validations (%(default)s)")
    group.add_argument("--checkpoint-every", type=int, default=100, help="steps between checkpoints (%(default)s)")


def recipe_names() -> list[str]:
    """The recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The job's options, and those for the Trainer that were given.

    Exits with a message, as argparse does, when an option is unknown or has a wrong value.
    """
    try:
        files = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        files.add_argument("--run", action="append", default=[])
        chosen, rest = files.parse_known_args(argv)
        # What comes last wins: the files' options go first.
        levels = [*(read_run(name) for name in chosen.run), rest]
        overruled = overruled_options(levels)
        args, remaining = parser.parse_known_args([word for level in levels for word in level])
        for name in overruled:
            setattr(args, name, parser.get_default(name))
        args.run = chosen.run
        return args, trainer_options(remaining)
    except ConfigError as error:
        parser.error(str(error))


def overruled_options(levels: Sequence[Sequence[str]]) -> set[str]:
    """Of options that exclude each other, those that a later file, or the command line, has chosen another instead of.

    Args:
        levels: the words of each file and of the command line, in order.

    Raises:
        ConfigError: both are given in one place.
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
        ConfigError: there is no such file, or it is not a mapping of options.
    """
    path = RECIPES / f"{name}.yaml" if name in recipe_names() else Path(name)
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


def trainer_options(words: list[str]) -> dict[str, Any]:
    """Options `--trainer.NAME VALUE`, checked against the Trainer's own signature, plug-ins built.

    Raises:
        ConfigError: one is unknown, has a wrong value, or is another option's business.
    """
    if not words:
        return {}
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(lightning.Trainer, TRAINER, instantiate=False)
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
