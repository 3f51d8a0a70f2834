"""The options of `parseq-train`: its own, and those of the recognisers. Lightning's Trainer has its own besides
(`model.training.parsing`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from model.command_line import Option, flag
from model.data.labels import add_label_options
from model.errors import ConfigError
from model.recognisers.registry import DEFAULT_MODEL, Recogniser, named_configs, recognisers
from model.training.averaging import Average
from model.training.schedule import Schedule

RECIPES: Final = Path(__file__).parent.parent / "recipes"
FORMER_RECIPES: Final = {"reference": "parseq"}
"""Former names of recipes, which are still accepted."""


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
    # `add_label_options` adds all three, for other commands too.
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
    beta2: Annotated[
        float, Option("of AdamW: how long it remembers squared gradients; a resumed run keeps its own (%(default)s)")
    ] = 0.98
    schedule: Annotated[Schedule, Option("(%(default)s)")] = "constant"
    warmup_steps: Annotated[int, Option("constant: steps of linear warm-up (%(default)s)")] = 300
    decay_fraction: Annotated[float, Option("constant: share of the steps that decay the rate (%(default)s)")] = 0.25
    warmup_fraction: Annotated[float, Option("onecycle: share that warms up (%(default)s)")] = 0.075
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
    of_recogniser: dict[str, Any] = field(default_factory=dict)
    """The given options that belong to recognisers, by name (`Recogniser.training_options`)."""

    def __post_init__(self) -> None:
        """Check values that would otherwise cause obscure errors later.

        Raises:
            ConfigError: A number is out of range.
        """
        if not 0 <= self.beta2 < 1:
            raise ConfigError(f"--beta2 must be at least 0 and less than 1, not {self.beta2}")

    @property
    def rand_augments(self) -> bool:
        """Whether any crop is augmented one by one, as in the reference."""
        return "reference" in (self.augment, self.augment_real)


def options_of(recogniser: Recogniser, given: Mapping[str, Any], runs: Sequence[str] = ()) -> dict[str, Any]:
    """All of the recogniser's own options: those given, and its defaults.

    Args:
        recogniser: Of the network that is trained.
        given: Options of recognisers, by name.
        runs: The files of options, and recipes, that they may come from.

    Raises:
        ConfigError: One of another recogniser's is given, or a value is out of range.
    """
    kind = recogniser.training_options
    own = {each.name for each in fields(kind)} if kind else set()
    for name in given.keys() - own:
        owners = [
            entry.class_name
            for entry in recognisers().values()
            if entry.training_options and name in entry.training_options.__dataclass_fields__
        ]
        others = {FORMER_RECIPES.get(run, run) for run in runs} - {recogniser.recipe}
        cure = f", or take its recipe: --run {recogniser.recipe}" if others else ""
        raise ConfigError(
            f"{flag(name)} is an option of {' and '.join(owners)}, the network is a {recogniser.class_name}: leave it out{cure}"
        )
    return asdict(kind(**given)) if kind else {}
