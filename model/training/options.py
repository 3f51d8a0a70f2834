"""The options of `parseq-train`: its own, any of Lightning's Trainer, and files of both."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import jsonargparse
import lightning
import yaml

from model.command_line import Option, add_options
from model.data.labels import add_label_options
from model.errors import ConfigError
from model.recognisers.registry import DEFAULT_MODEL, named_configs
from model.training.averaging import Average
from model.training.schedule import Schedule

# Two ways of saying one thing: in one place only one of them, and the last place wins.
EXCLUSIVE: Final = (("steps", "epochs"), ("model", "config"))
RECIPES: Final = Path(__file__).parent.parent / "recipes"
TRAINER: Final = "trainer"
# What only the job can know; `parseq-train` has options of its own for them.
TRAINER_TAKEN: Final = {
    "max_steps": "--steps",
    "max_epochs": "--epochs",
    "default_root_dir": "--output",
    "val_check_interval": "--validate-every",
}


def recipe_names() -> list[str]:
    """The recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What a training job is told, besides the options of Lightning's Trainer."""

    run: Annotated[
        list[str],
        Option(
            f"options from a file, or a recipe: {', '.join(recipe_names())}; the command line wins; repeat", metavar="FILE.yaml"
        ),
    ] = field(default_factory=list)
    output: Annotated[Path, Option("folder for checkpoints, logs and weights")]
    resume: Annotated[bool, Option("go on from the last checkpoint in --output")] = False
    seed: Annotated[int, Option("of everything that is drawn (%(default)s)")] = 0
    threads: Annotated[int, Option("CPU threads; 0: PyTorch's choice")] = 0

    model: Annotated[
        str | None,
        Option(
            f"architecture: {', '.join(named_configs())} (default: that of --weights or of the run, else {DEFAULT_MODEL})",
            group="network",
        ),
    ] = None
    config: Annotated[Path | None, Option("architecture from a JSON file instead", metavar="FILE.json")] = None
    charset: Annotated[
        str | None, Option("characters to read: a standard set, or those of a text file", metavar="36|62|94|FILE")
    ] = None
    add_characters: Annotated[str, Option("characters to read besides, such as 'äöü '", metavar="CHARACTERS")] = ""
    max_label_length: Annotated[int | None, Option("characters of the longest label (default: the architecture's)")] = None
    weights: Annotated[
        str | None,
        Option(
            "begin with these weights instead of random ones: those of a released or the bundled network, or a file",
            metavar="NAME|FILE",
        ),
    ] = None

    source: Annotated[
        list[str],
        Option(
            "train on this, in a share of each batch that follows from the weights (1): an LMDB or a folder of such, a folder "
            "with a file of labels, a folder of rendered crops, or the word `render`; repeat",
            metavar="WHAT[=WEIGHT]",
            group="data",
        ),
    ] = field(default_factory=list)
    data_root: Annotated[Path | None, Option("holds train/, val/ and test/", metavar="FOLDER")] = None
    train_dir: Annotated[
        str | None, Option("train on all below train/NAME of --data-root: real, synth, ...", metavar="NAME")
    ] = None
    synthetic: Annotated[list[Path], Option("folder of rendered crops (python -m model.synth); repeat")] = field(
        default_factory=list
    )
    render: Annotated[bool, Option("render crops beside the training, never the same twice")] = False
    real: Annotated[list[Path], Option("LMDB of real crops, or a folder of such; every tenth is for validation; repeat")] = (
        field(default_factory=list)
    )
    real_caseless: Annotated[
        list[Path], Option("LMDB whose labels do not tell the case: only its crops without letters are used")
    ] = field(default_factory=list)
    real_share: Annotated[float, Option("share of real crops in a batch (%(default)s)")] = 0.16
    synthetic_validation: Annotated[Path | None, Option("folder of rendered crops to validate on")] = None
    validation: Annotated[list[Path], Option("crops to validate on, as --source (default: val/ of --data-root); repeat")] = (
        field(default_factory=list)
    )
    render_fonts: Annotated[list[Path], Option("folder of fonts to render with (default: the installed ones); repeat")] = field(
        default_factory=list
    )
    render_words: Annotated[Path | None, Option("words to render, one a line (default: the dictionaries)", metavar="FILE")] = (
        None
    )
    render_wide: Annotated[
        bool,
        Option(
            "render more of what is rare (python -m model.synth --help), crops without text too if --keep-empty (default: no)",
            opposite=True,
        ),
    ] = False
    # It adds all three, which other commands have too.
    normalise_unicode: Annotated[bool, add_label_options] = True
    keep_whitespace: bool | None = None
    keep_empty: bool = False
    lazy: Annotated[
        bool | None,
        Option(
            "decode crops when they are needed instead of holding them in memory (default: with RandAugment, or when they "
            "would fill a quarter of the memory)",
            opposite=True,
        ),
    ] = None
    workers: Annotated[int | None, Option("processes that load data (default: 0 if all is in memory, else up to 4)")] = None
    augment: Annotated[
        Literal["fast", "reference", "none"],
        Option("fast: jitter and warp whole batches; reference: RandAugment of each crop (%(default)s)"),
    ] = "fast"
    augment_real: Annotated[
        Literal["reference", "none"],
        Option("RandAugment of crops that are not rendered, whatever --augment says (%(default)s)"),
    ] = "none"

    steps: Annotated[int, Option("steps in all, those before a resume included (%(default)s)", group="training")] = 6000
    epochs: Annotated[float | None, Option("instead: times that all crops of the sources are seen")] = None
    batch_size: Annotated[int, Option("crops a step and device (%(default)s)")] = 64
    lr: Annotated[float, Option("peak learning rate (%(default)s)")] = 1.5e-3
    scale_lr: Annotated[
        bool,
        Option(
            "take --lr as the rate for 256 crops, and scale it by batch, devices and accumulation as the reference does",
            opposite=True,
        ),
    ] = False
    weight_decay: Annotated[float, Option("of AdamW (%(default)s)")] = 0.01
    schedule: Annotated[Schedule, Option("(%(default)s)")] = "constant"
    warmup_steps: Annotated[int, Option("constant: steps of linear warm-up (%(default)s)")] = 300
    decay_fraction: Annotated[float, Option("constant: share of the steps that decay the rate (%(default)s)")] = 0.25
    warmup_fraction: Annotated[float, Option("onecycle: share that warms up (%(default)s)")] = 0.075
    glyph_weight: Annotated[float, Option("weight of the glyph-centre loss (%(default)s)")] = 1.0
    ctc_weight: Annotated[float, Option("weight of a CTC loss over the encoder's columns (%(default)s: none)")] = 0.0
    compile: Annotated[
        bool,
        Option(
            "compile the encoder for training: a minute at the start, faster steps; needs a C++ compiler (default: no)",
            opposite=True,
        ),
    ] = False
    average: Annotated[Average, Option("average of the weights to validate and save (%(default)s)")] = "none"
    average_from: Annotated[float, Option("share of the steps before averaging begins (%(default)s)")] = 0.0
    ema_decay: Annotated[float, Option("of the exponential average (%(default)s)")] = 0.999
    validate_every: Annotated[int, Option("steps between validations (%(default)s)")] = 500
    checkpoint_every: Annotated[int, Option("steps between checkpoints (%(default)s)")] = 100

    @property
    def rand_augments(self) -> bool:
        """Whether any crop is augmented as the reference does it, which takes the crop itself and time."""
        return "reference" in (self.augment, self.augment_real)


Options = TypeVar("Options", bound=TrainOptions)


def build_parser(options: type[TrainOptions], prog: str, description: str | None) -> argparse.ArgumentParser:
    """The command line that gives `options`."""
    parser = argparse.ArgumentParser(
        prog=prog,
        # The whole list of options above each error would bury it.
        usage=f"{prog} --output FOLDER [options] (--help lists them)",
        description=description,
        epilog="Any option of Lightning's Trainer besides: --trainer.precision bf16-mixed, --trainer.devices 2, "
        "--trainer.strategy ddp, --trainer.accumulate_grad_batches 4, --trainer.enable_progress_bar false, ...",
    )
    add_options(parser, options)
    return parser


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
    parser = build_parser(options, prog, description)
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
        return options(**vars(args)), trainer_options(remaining)
    except ConfigError as error:
        parser.error(str(error))


def overruled_options(levels: Sequence[Sequence[str]]) -> set[str]:
    """Of options that exclude each other, those that a later file, or the command line, has chosen another instead of.

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


@functools.cache
def _trainer_parser() -> jsonargparse.ArgumentParser:
    """Made once: to read the signature of the Trainer takes longer than to start one."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(lightning.Trainer, TRAINER, instantiate=False)
    return parser


def trainer_options(words: list[str]) -> dict[str, Any]:
    """Options `--trainer.NAME VALUE`, checked against the Trainer's own signature, plug-ins built.

    Raises:
        ConfigError: One is unknown, has a wrong value, or is another option's business.
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
