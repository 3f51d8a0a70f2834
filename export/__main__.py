"""`parseq-export`: weights in, self-contained artifact out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from export.artifact import DecodeMode
from export.parity import ParityError
from export.to_onnx import ExportError, ExportOptions, ExportSummary, check_writable, export_artifact
from model.configs import NAMED, ConfigError, read_config
from model.download import DownloadError, file_sha256
from model.loading import load, weights_path
from model.parseq import PARSeq

EXIT_PARITY = 1
EXIT_USAGE = 2


class OneLineParser(argparse.ArgumentParser):
    """Reports a wrong argument in one line."""

    def error(self, message: str) -> NoReturn:
        """Print one line and leave with status 2."""
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message} (--help lists the options)\n")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = OneLineParser(
        prog="parseq-export",
        description="Write a PARSeq network as one ONNX file that parseq-serve runs: pixels in, text and confidences out. "
        "The file is written only if it reads as PyTorch does.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", metavar="NAME", help=f"architecture: {', '.join(NAMED)}")
    which.add_argument("--config", metavar="FILE.json", type=Path, help="architecture from a JSON file of its sizes")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        type=Path,
        help="state dict (.pt), safetensors or training checkpoint; without it the bundled or published weights of --model",
    )
    parser.add_argument("--decode", choices=("ar", "nar"), help="read in turn, or all at once (default: the model's own)")
    parser.add_argument("--refine-iters", metavar="N", type=_count, help="how often to read again (default: the model's own)")
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="the .onnx file to write")
    parser.add_argument("--with-logits", action="store_true", help="give the logits as a third output")
    parser.add_argument("--precision", choices=("fp32",), default="fp32", help="arithmetic of the graph (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--name", help="the model's name as the server shows it (default: --model, or the weights' file name)")
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, not {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 written, 1 refused by the parity gate, 2 wrong input."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    try:
        check_writable(args.output, force=args.force)
        model, weights = _load(args)
        summary = _export(args, model, weights)
    except ParityError as error:
        for failure in error.report.failures[1:]:
            print(f"parseq-export: also: {failure}", file=sys.stderr)
        print(f"parseq-export: refused: {error}; nothing was written", file=sys.stderr)
        return EXIT_PARITY
    except (ConfigError, ExportError, DownloadError, _InputError) as error:
        print(f"parseq-export: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    _print_summary(summary)
    return 0


class _InputError(ValueError):
    """Weights or a configuration that cannot be used."""


def _load(args: argparse.Namespace) -> tuple[PARSeq, Path]:
    """The network and the file its weights came from."""
    if args.weights is None and args.model is None:
        raise ConfigError("give --weights FILE, or --model NAME for its bundled or published weights")
    config = read_config(args.config) if args.config else None
    weights = args.weights if args.weights is not None else weights_path(args.model)
    try:
        return load(args.model, config=config, weights=weights), weights
    except ValueError as error:
        raise _InputError(str(error)) from error


def _export(args: argparse.Namespace, model: PARSeq, weights: Path) -> ExportSummary:
    decode: DecodeMode = args.decode or ("ar" if model.config.decode_ar else "nar")
    options = ExportOptions(
        model_name=args.name or args.model or weights.stem,
        decode=decode,
        refine_iters=model.config.refine_iters if args.refine_iters is None else args.refine_iters,
        weights_sha256=file_sha256(weights),
        with_logits=args.with_logits,
        precision=args.precision,
    )
    # Nothing is drawn where nobody looks.
    with tqdm(desc="comparing with PyTorch", unit="crop", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return export_artifact(model, options, args.output, force=args.force, progress=show)


def _print_summary(summary: ExportSummary) -> None:
    parity, metadata = summary.parity, summary.metadata
    print(f"wrote    {summary.path} ({summary.size_bytes / 1e6:.1f} MB, {summary.nodes} nodes)")
    print(
        f"model    {metadata.model_name}: {metadata.image_height}x{metadata.image_width} pixels, "
        f"{len(metadata.charset)} characters, up to {metadata.max_label_length} long, "
        f"{metadata.decode_mode} with {metadata.refine_iters} refinements, {metadata.precision}"
    )
    sizes = ", ".join(map(str, parity.batch_sizes))
    print(
        f"parity   {parity.comparisons} readings of {parity.crops} crops at batch {sizes}: text equal to PyTorch's, "
        f"confidences within {parity.max_confidence_difference:.1e}; {parity.near_ties} near ties"
        + (f", {parity.near_ties_differing} of them differ" if parity.near_ties_differing else "")
    )


if __name__ == "__main__":
    sys.exit(main())
