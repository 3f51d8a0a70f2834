"""`parseq-train`: train PARSeq on rendered and real crops, resumable, with its learning curve as CSV and picture."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from model.configs import ConfigError, PARSeqConfig, named_config, read_config
from model.curve import draw_curve
from model.data import Batch, BatchStream, Crops, DataError, concatenate, find_lmdb, read_lmdb, read_synthetic
from model.loading import WeightsError, load
from model.system import RecognitionSystem

HELD_OUT_EVERY = 10
"""Of the real crops every tenth is for validation."""
VALIDATION_BATCH = 100


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="parseq-train", description=__doc__)
    parser.add_argument("--model", default="parseq-nano", help="architecture by name (default: %(default)s)")
    parser.add_argument("--config", type=Path, help="architecture from a JSON file instead")
    parser.add_argument(
        "--synthetic", type=Path, action="append", default=[], help="folder of rendered crops (python -m model.synth); repeat"
    )
    parser.add_argument("--synthetic-validation", type=Path, help="folder of rendered crops to validate on")
    parser.add_argument(
        "--real", type=Path, action="append", default=[], help="LMDB of real crops, or a folder of such; repeat"
    )
    parser.add_argument(
        "--real-caseless",
        type=Path,
        action="append",
        default=[],
        help="LMDB whose labels do not tell the case: only its crops without letters are used",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints, logs and weights")
    parser.add_argument("--steps", type=int, default=6000, help="steps in all, those before a resume included (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="crops a step (%(default)s)")
    parser.add_argument("--real-share", type=float, default=0.16, help="share of real crops in a batch (%(default)s)")
    parser.add_argument("--lr", type=float, default=1.5e-3, help="peak learning rate (%(default)s)")
    parser.add_argument("--warmup-steps", type=int, default=300, help="steps of linear warm-up (%(default)s)")
    parser.add_argument(
        "--decay-fraction", type=float, default=0.25, help="share of the steps that decay the rate (%(default)s)"
    )
    parser.add_argument("--glyph-weight", type=float, default=1.0, help="weight of the glyph-centre loss (%(default)s)")
    parser.add_argument("--validate-every", type=int, default=500, help="steps between validations (%(default)s)")
    parser.add_argument("--checkpoint-every", type=int, default=100, help="steps between checkpoints (%(default)s)")
    parser.add_argument("--weights", type=Path, help="begin with these weights instead of random ones (not with --resume)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --output")
    return parser.parse_args(argv)


def real_crops(args: argparse.Namespace, config: PARSeqConfig) -> tuple[list[Crops], list[Crops]]:
    """Real crops for training and, every tenth, for validation."""
    training, validation = [], []
    for roots, caseless in ((args.real, False), (args.real_caseless, True)):
        for folder in (folder for root in roots for folder in find_lmdb(root)):
            crops, left_out = read_lmdb(folder, config.img_size, config.charset_train, config.max_label_length)
            if caseless:
                crops = crops.take([i for i, label in enumerate(crops.labels) if label.upper() == label.lower()])
            print(f"{folder.name}: {len(crops)} crops, {left_out} left out", file=sys.stderr)
            held_out = set(range(0, len(crops), HELD_OUT_EVERY))
            validation.append(crops.take(sorted(held_out)))
            training.append(crops.take([i for i in range(len(crops)) if i not in held_out]))
    return training, validation


def validation_loader(crops: Crops) -> DataLoader[Batch]:
    """All of `crops` once, in order."""
    starts = range(0, len(crops), VALIDATION_BATCH)
    batches = [crops.take(range(start, min(start + VALIDATION_BATCH, len(crops)))).batch() for start in starts]
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def build_data(
    args: argparse.Namespace, config: PARSeqConfig, first_step: int
) -> tuple[DataLoader[Batch], dict[str, DataLoader[Batch]]]:
    """The training stream and the validation loaders by name, `synthetic` and `real`."""
    real, real_validation = real_crops(args, config)
    real_count = round(args.batch_size * args.real_share) if real else 0
    sources = []
    if args.synthetic:
        rendered = concatenate([read_synthetic(folder) for folder in args.synthetic])
        sources.append((rendered, args.batch_size - real_count))
    elif real:
        real_count = args.batch_size
    if real:
        sources.append((concatenate(real), real_count))
    if not sources:
        raise DataError("nothing to train on: give --synthetic FOLDER, --real FOLDER or both")
    validation = {}
    if args.synthetic_validation:
        validation["synthetic"] = validation_loader(read_synthetic(args.synthetic_validation))
    if real_validation:
        validation["real"] = validation_loader(concatenate(real_validation))
    stream = BatchStream(sources, args.seed, first_step)
    return DataLoader(stream, batch_size=None), validation


def last_checkpoint(output: Path) -> tuple[Path | None, int]:
    """The newest checkpoint of a run and the steps it has done."""
    path = output / "last.ckpt"
    if not path.is_file():
        return None, 0
    return path, int(torch.load(path, map_location="cpu", weights_only=True)["global_step"])


def train(args: argparse.Namespace) -> Path:
    """Run the job.

    Returns:
        The weights file, safetensors, of the network alone.

    Raises:
        ConfigError, DataError, WeightsError: the arguments do not make a job.
    """
    if args.threads:
        torch.set_num_threads(args.threads)
    config = read_config(args.config) if args.config else named_config(args.model)
    checkpoint, first_step = last_checkpoint(args.output)
    if checkpoint and not args.resume:
        raise DataError(f"{args.output} already holds a run: add --resume to go on, or choose another --output")
    lightning.seed_everything(args.seed)
    system = RecognitionSystem(
        config.to_dict(),
        lr=args.lr,
        warmup_steps=args.warmup_steps,
        decay_fraction=args.decay_fraction,
        glyph_weight=args.glyph_weight,
        seed=args.seed,
    )
    if args.weights and not checkpoint:
        system.model.load_state_dict(load(config=config, weights=args.weights).state_dict())
    loader, validation = build_data(args, config, first_step)
    trainer = build_trainer(args, bool(validation))
    system.validation_names = list(validation)
    trainer.fit(system, loader, list(validation.values()) or None, ckpt_path=checkpoint)
    draw_curve(args.output)
    weights: Path = args.output / f"{args.model if not args.config else args.config.stem}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in system.model.state_dict().items()}, weights)
    return weights


def build_trainer(args: argparse.Namespace, validates: bool) -> lightning.Trainer:
    """A Lightning trainer for one CPU or GPU."""
    # Whether the folder may hold a run already has been checked by then.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    checkpoints = ModelCheckpoint(
        dirpath=args.output, filename="last", every_n_train_steps=args.checkpoint_every, enable_version_counter=False
    )
    return lightning.Trainer(
        max_steps=args.steps,
        default_root_dir=args.output,
        logger=CSVLogger(args.output, name="", version=f"log-{len(list(args.output.glob('log-*')))}"),
        callbacks=[checkpoints, LearningRateMonitor("step")],
        val_check_interval=args.validate_every if validates else None,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        log_every_n_steps=20,
        enable_model_summary=False,
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    args = parse_args(argv)
    try:
        weights = train(args)
    except (ConfigError, DataError, WeightsError) as error:
        print(f"parseq-train: {error}", file=sys.stderr)
        return 2
    print(weights)
    return 0


if __name__ == "__main__":
    sys.exit(main())
