"""`parseq-train`: train a recogniser on rendered and real crops, resumable, with its learning curve as CSV and picture."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from model.charsets import read_charset
from model.checkpoints.choose import choose_config, name_of, names_network, weights_file
from model.checkpoints.download import DownloadError
from model.checkpoints.loading import WeightsError, config_inside, read_checkpoint, read_weights, save_weights
from model.errors import ConfigError, DataError, DivergedError
from model.recognisers.interface import Config
from model.recognisers.registry import DEFAULT_MODEL, default_recogniser, named_config, recogniser_of
from model.training.averaging import CHECKPOINT_KEY
from model.training.curve import draw_if_possible
from model.training.data import build_data
from model.training.finetune import begin_with
from model.training.opening import tell
from model.training.options import TrainOptions, options_of, recipe_names
from model.training.parsing import parse
from model.training.schedule import scaled_rate
from model.training.stopping import Stopped, StopRequest, StopWhenAsked
from model.training.system import RecognitionSystem
from model.training.trainer import BEST, LAST, build_trainer

EXIT_DIVERGED: Final = 3
EXIT_BY_SIGNAL: Final = 128
"""Plus the signal's number, as in shells: 130 for Ctrl-C, 143 for SIGTERM."""


def parse_args(argv: list[str] | None = None) -> tuple[TrainOptions, dict[str, Any]]:
    """The job's options, and those for the Trainer."""
    return parse(TrainOptions, sys.argv[1:] if argv is None else argv, description=__doc__)


def last_checkpoint(output: Path) -> dict[str, Any] | None:
    """The newest checkpoint of a run, if it has one.

    Raises:
        WeightsError: It cannot be read.
    """
    path = output / LAST
    return read_checkpoint(path, f"resume from a copy of {BEST} under its name") if path.is_file() else None


def network_config(args: TrainOptions, checkpoint: dict[str, Any] | None) -> Config:
    """The architecture that the options ask for.

    Raises:
        ConfigError, WeightsError: They describe none, or another one than that of the run to be resumed.
    """
    resumed = config_inside(checkpoint["hyper_parameters"]) if checkpoint else None
    told = None
    if args.model or args.config:
        told = choose_config(args.model, args.config, args.weights, recogniser_of(resumed) if resumed else None)
    config = told or resumed or choose_config(None, None, args.weights) or named_config(DEFAULT_MODEL)
    changes: dict[str, Any] = {}
    if args.charset:
        changes["charset_train"] = read_charset(args.charset)
    if args.add_characters:
        base = str(changes.get("charset_train", config.charset_train))
        changes["charset_train"] = base + "".join(c for c in dict.fromkeys(args.add_characters) if c not in base)
    if args.max_label_length is not None:
        changes["max_label_length"] = args.max_label_length
    if derived := changes.keys() - config.__dataclass_fields__.keys():
        name = min(derived)
        raise ConfigError(
            f"{name} of a {config.RECOGNISER!r} follows from its other sizes: leave --{name.replace('_', '-')} out"
        )
    config = replace(config, **changes)
    if resumed is not None:
        given = {"recogniser": config.RECOGNISER, **config.to_dict()}
        for name, value in {"recogniser": resumed.RECOGNISER, **resumed.to_dict()}.items():
            if name not in resumed.FREE and given[name] != value:
                raise ConfigError(
                    f"the run in {args.output} has {name} {value!r}, not {given[name]!r}: leave that option out to "
                    "resume it, or begin another run with --weights"
                )
    return config


def with_beta2_of(checkpoint: dict[str, Any], args: TrainOptions) -> TrainOptions:
    """The options with the second beta with which the run began, since the optimiser's averages were made with it."""
    beta2 = checkpoint["hyper_parameters"].get("beta2", TrainOptions.beta2)  # earlier versions had only this value
    if beta2 != args.beta2:
        rank_zero_only(tell)(f"{args.output} goes on with --beta2 {beta2}, as it began")
    return replace(args, beta2=beta2)


def how_the_reference_trains(args: TrainOptions, config: Config) -> str | None:
    """A hint at the recipe, for a network of the reference implementation that is trained from scratch without one."""
    recogniser, name = recogniser_of(config), name_of(config)
    if args.run or args.weights or not (name in recogniser.published or recogniser is not default_recogniser()):
        return None
    recipe = name if name in recipe_names() else recogniser.recipe
    return (
        "no --run is given: the options are those for parseq-nano, a small network; "
        f"--run {recipe} has the reference implementation's"
    )


def build_system(args: TrainOptions, config: Config, *, fresh: bool) -> RecognitionSystem:
    """The network with its losses and schedule; a fresh one begins with `--weights`."""
    recogniser = recogniser_of(config)
    system = RecognitionSystem(
        config.to_dict(),
        recogniser.name,
        lr=args.lr,
        weight_decay=args.weight_decay,
        warmup_steps=args.warmup_steps,
        decay_fraction=args.decay_fraction,
        seed=args.seed,
        schedule=args.schedule,
        warmup_fraction=args.warmup_fraction,
        batch_augment=args.augment == "fast",
        compile_encoder=args.compile,
        beta2=args.beta2,
        **options_of(recogniser, args.of_recogniser, args.run),
    )
    if args.weights and fresh:
        state, told = read_weights(weights_file(args.weights))
        told = told or (named_config(args.weights) if names_network(args.weights) else None)
        print(begin_with(system.model, state, told, str(args.weights)), file=sys.stderr)
    return system


def train(args: TrainOptions, trainer_options: dict[str, Any], callbacks: Sequence[Callback] = ()) -> Path:
    """Run the job.

    Returns:
        The weights file, safetensors, of the network alone.

    Raises:
        ConfigError, DataError, WeightsError, DownloadError: The arguments do not make a job.
        DivergedError: The loss or gradients are nan or infinite.
        Stopped: A signal has ended it; what it had done is saved.
    """
    request = StopRequest()
    with request.listening():
        return _train(args, trainer_options, [*callbacks, StopWhenAsked(request, args.output / LAST)])


def _train(args: TrainOptions, trainer_options: dict[str, Any], callbacks: Sequence[Callback]) -> Path:
    if args.threads:
        torch.set_num_threads(args.threads)
    checkpoint = last_checkpoint(args.output)
    if checkpoint and not args.resume:
        raise DataError(f"{args.output} already holds a run: add --resume to go on, or choose another --output")
    if checkpoint and CHECKPOINT_KEY in checkpoint and args.average == "none":
        raise ConfigError(f"the run in {args.output} averages its weights: resume it with the same --average")
    if args.resume:
        step = f"goes on from step {checkpoint['global_step']}" if checkpoint else "holds no run yet: it begins anew"
        rank_zero_only(tell)(f"{args.output} {step}")
    config = network_config(args, checkpoint)
    lightning.seed_everything(args.seed, verbose=False)
    if checkpoint is not None:
        args = with_beta2_of(checkpoint, args)
    elif told := how_the_reference_trains(args, config):
        rank_zero_only(tell)(told)
    system = build_system(args, config, fresh=checkpoint is None)
    data = build_data(args, config, int(checkpoint["global_step"]) if checkpoint else 0)
    trainer = build_trainer(args, trainer_options, data, callbacks)
    if args.scale_lr:
        system.scale_rate = partial(
            scaled_rate,
            batch_size=args.batch_size,
            devices=trainer.world_size,
            accumulated=trainer.accumulate_grad_batches,
        )
    system.validation_names = list(data.validation)
    try:
        trainer.fit(system, datamodule=data, ckpt_path=args.output / LAST if checkpoint else None, weights_only=True)
    finally:
        data.processes.let_go()
    weights = args.output / f"{weights_name(args, config)}.safetensors"
    if trainer.is_global_zero:
        for name, count in data.broken().items():
            tell(f"{name}: {count} broken images met and skipped")
        save_weights(system.model, weights)
        draw_if_possible(args.output)
    return weights


def how_to_go_on(output: Path) -> str:
    """What a stopped run has left, and how to resume it."""
    try:
        checkpoint = last_checkpoint(output)
    except WeightsError as error:
        return str(error)
    if checkpoint is None:
        return "before its first step was done, so nothing is left of it"
    return f"the same command with --resume goes on from step {checkpoint['global_step']}"


def weights_name(args: TrainOptions, config: Config) -> str:
    """The name of a run's weights file, after its architecture."""
    if args.config:
        return args.config.stem
    if args.model:
        return args.model
    return name_of(config) or "weights"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 2 for a wrong call, 3 if training has diverged, over 128 if it was stopped."""
    args, trainer_options = parse_args(argv)
    try:
        weights = train(args, trainer_options)
    except (ConfigError, DataError, WeightsError, DownloadError) as error:
        print(f"parseq-train: {error}", file=sys.stderr)
        return 2
    except DivergedError as error:
        print(f"parseq-train: {error}", file=sys.stderr)
        return EXIT_DIVERGED
    except (Stopped, KeyboardInterrupt) as stopped:
        signum = stopped.signum if isinstance(stopped, Stopped) else signal.SIGINT
        rank_zero_only(tell)(f"parseq-train: stopped; {how_to_go_on(args.output)}")
        return EXIT_BY_SIGNAL + signum
    except SystemExit as stopped:
        # how Lightning reports an interrupt that was not a signal
        if not isinstance(stopped.__context__, KeyboardInterrupt):
            raise
        rank_zero_only(tell)(f"parseq-train: stopped; {how_to_go_on(args.output)}")
        return EXIT_BY_SIGNAL + signal.SIGINT
    rank_zero_only(print)(weights)
    return 0


if __name__ == "__main__":
    sys.exit(main())
