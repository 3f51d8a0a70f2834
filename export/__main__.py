"""`parseq-export`: weights in, self-contained artifact out.

`parseq-export adopt FILE`: the same from somebody else's ONNX file. `parseq-export inspect FILE`: show what is in an artifact.
`parseq-export weights FILE`: the weights alone, out of a training checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn, get_args

from tqdm import tqdm

from artifact.download import file_sha256
from artifact.metadata import ArtifactError, Precision
from export.adopt.check import MisreadError
from export.adopt.command import add_arguments, adopt_file
from export.gate.crop_sources import CropSourceError, parity_data
from export.gate.parity import ParityError
from export.graphs.interface import ExportError, all_graphs, graph_of
from export.inspect import describe, inspect_artifact
from export.to_onnx import ExportOptions, ExportSummary, check_writable, export_artifact
from model.checkpoints.choose import choose_network
from model.checkpoints.download import DownloadError
from model.checkpoints.loading import save_weights, weights_path
from model.errors import ConfigError, WeightsError
from model.recognisers.interface import Network
from model.recognisers.registry import named_configs

EXIT_PARITY: Final = 1
EXIT_USAGE: Final = 2
WRONG_INPUT: Final = (ArtifactError, ConfigError, CropSourceError, DownloadError, ExportError, OSError, WeightsError)
"""What a user can mend; the message says how."""
PRECISION_HELP: Final = "arithmetic of the graph: fp16 is for GPUs, int8 for CPUs (default: what suits --for, else fp32)"


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
        epilog="parseq-export adopt FILE makes such a file of a recogniser that somebody else has exported; "
        "parseq-export inspect FILE tells what is in one; parseq-export weights FILE takes the weights out of a checkpoint.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", metavar="NAME", help=f"architecture: {', '.join(named_configs())}")
    which.add_argument("--config", metavar="FILE.json", type=Path, help="architecture from a JSON file of its sizes")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        type=Path,
        help="state dict (.pt), safetensors or training checkpoint; without it the bundled or published weights of --model",
    )
    parser.set_defaults(reading_options=_reading_options(parser))
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="the .onnx file to write")
    parser.add_argument("--with-logits", action="store_true", help="give the logits as a third output")
    parser.add_argument(
        "--top",
        metavar="K",
        type=_candidates,
        default=0,
        help="give the K best candidates of each step, from which a server makes alternatives (5 is what it asks for)",
    )
    parser.add_argument(
        "--allowed",
        action="store_true",
        help="take an input that says which characters may be read, for requests that want digits only, say",
    )
    parser.add_argument(
        "--for",
        dest="target",
        choices=("cpu", "cuda"),
        help="what is to run it: where nothing else is said, cuda takes fp16 with every step written out; cpu int8 if there is "
        "--calibration, else fp32, with an early exit where the recogniser has one",
    )
    parser.add_argument("--precision", choices=get_args(Precision), help=PRECISION_HELP)
    parser.add_argument(
        "--calibration",
        metavar="FOLDER",
        type=Path,
        action="append",
        default=[],
        help="int8: crops to find the scales with, LMDB archives, labelled image files or rendered shards; never those it is "
        "tested on; repeat to take as many of each",
    )
    parser.add_argument(
        "--parity-data",
        metavar="FOLDER",
        type=Path,
        help="crops to compare with PyTorch besides those that are drawn, likewise",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--name", help="the model's name as the server shows it (default: --model, or the weights' file name)")
    return parser


def _reading_options(parser: argparse.ArgumentParser) -> list[str]:
    """Add the recognisers' own options; returns the names that they are parsed to."""
    before = len(parser._actions)
    for graph in all_graphs().values():
        graph.add_arguments(parser)
    return [action.dest for action in parser._actions[before:]]


def _candidates(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def build_inspect_parser() -> argparse.ArgumentParser:
    """The command line of `parseq-export inspect`."""
    parser = OneLineParser(
        prog="parseq-export inspect", description="Print what an artifact is, what is in it, and how fast it runs here."
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the .onnx file")
    parser.add_argument("--no-timing", action="store_true", help="do not run it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def inspect(arguments: Sequence[str]) -> None:
    """Run `parseq-export inspect`.

    Raises:
        ArtifactError: The file is no artifact.
    """
    args = build_inspect_parser().parse_args(arguments)
    found = inspect_artifact(args.file, timing=not args.no_timing)
    print(json.dumps(found.to_dict(), ensure_ascii=False, indent=1) if args.json else describe(found))


def build_adopt_parser() -> argparse.ArgumentParser:
    """The command line of `parseq-export adopt`."""
    parser = OneLineParser(
        prog="parseq-export adopt",
        description="Make an artifact of a recogniser that somebody else has exported to ONNX. The file is written only if "
        "words are read rightly under its description, better than under others, and as the original reads them.",
    )
    add_arguments(parser)
    return parser


def adopt(arguments: Sequence[str]) -> None:
    """Run `parseq-export adopt`.

    Raises:
        ExportError, MisreadError, ParityError: As `adopt_file` says.
    """
    args = build_adopt_parser().parse_args(arguments)
    with _progress("comparing with the original") as show:
        summary = adopt_file(args, show)
    _print_summary(summary)


def build_weights_parser() -> argparse.ArgumentParser:
    """The command line of `parseq-export weights`."""
    parser = OneLineParser(
        prog="parseq-export weights",
        description="Write the weights of a training checkpoint, or of any other file of weights, as safetensors. The file "
        "tells its architecture, and has nothing of what only training needs.",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="state dict (.pt), safetensors or training checkpoint")
    parser.add_argument("--config", metavar="FILE.json", type=Path, help="architecture, where the weights do not tell it")
    parser.add_argument("--output", metavar="FILE.safetensors", type=Path, required=True, help="the file to write")
    parser.add_argument("--half", action="store_true", help="store float16, half the size; they are read into float32")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    return parser


def write_weights(arguments: Sequence[str]) -> None:
    """Run `parseq-export weights`.

    Raises:
        ConfigError, WeightsError: The weights cannot be used.
        ExportError, OSError: The file cannot be written.
    """
    args = build_weights_parser().parse_args(arguments)
    check_writable(args.output, force=args.force)
    if args.output.suffix != ".safetensors":
        raise ExportError(f"{args.output} is not called .safetensors, by which such a file is known: name it so")
    network, _ = choose_network(None, args.config, args.file)
    save_weights(network, args.output, half=args.half)
    count = sum(parameter.numel() for parameter in network.parameters())
    size, charset = args.output.stat().st_size / 1e6, network.config.charset_train
    print(f"wrote    {args.output} ({size:.1f} MB, {count / 1e6:.2f} million parameters, {len(charset)} characters)")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    # No progress bar unless standard error is a terminal.
    with tqdm(desc=what, unit="crop", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


COMMANDS: Final = {"adopt": adopt, "inspect": inspect, "weights": write_weights}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 refused for what is read, 2 wrong input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments and arguments[0] in COMMANDS:
            COMMANDS[arguments[0]](arguments[1:])
        else:
            export(arguments)
    except (ParityError, MisreadError) as error:
        if isinstance(error, ParityError):
            for failure in error.report.failures[1:]:
                print(f"parseq-export: also: {failure}", file=sys.stderr)
        print(f"parseq-export: refused: {error}; nothing was written", file=sys.stderr)
        return EXIT_PARITY
    except WRONG_INPUT as error:
        print(f"parseq-export: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


def export(arguments: Sequence[str]) -> None:
    """Run `parseq-export` itself.

    Raises:
        ConfigError, WeightsError, DownloadError: There are no such weights, or they cannot be used.
        CropSourceError: Crops cannot be read.
        ExportError: Options contradict each other, or the file cannot be written.
        ParityError: The artifact does not read as PyTorch does.
    """
    args = build_parser().parse_args(arguments)
    args.precision = args.precision or _precision_for(args)
    check_writable(args.output, force=args.force)
    if args.calibration and args.precision != "int8":
        raise ExportError("--calibration is for --precision int8: leave it out, or add that")
    if args.name == "":
        raise ExportError("--name is empty: leave it out, or give a name")
    model, weights = _load(args)
    _print_summary(_export(args, model, weights))


def _load(args: argparse.Namespace) -> tuple[Network, Path]:
    """The network and the file its weights came from."""
    if args.weights is None and args.model is None:
        raise ConfigError("give --weights FILE, or --model NAME for its bundled or published weights")
    weights = args.weights if args.weights is not None else weights_path(args.model)
    network, _ = choose_network(args.model, args.config, weights)
    return network, weights


def _precision_for(args: argparse.Namespace) -> Precision:
    """What is quickest where it is to run; a CPU's integers need crops to find their scales with."""
    if args.target == "cuda":
        return "fp16"
    return "int8" if args.target == "cpu" and args.calibration else "fp32"


def _reading_for(args: argparse.Namespace, model: Network) -> dict[str, Any]:
    """What was chosen of the recogniser's own options; an early exit suits a CPU, and no GPU (docs/adr/0007)."""
    chosen = {name: value for name in args.reading_options if (value := getattr(args, name)) is not None}
    if args.target is None or "early_exit" in chosen:
        return chosen
    suited = chosen | {"early_exit": args.target == "cpu"}
    try:
        graph_of(model).options(model, suited, args.precision)
    except ExportError:  # this recogniser has no such option, or reads at once and so has no steps to leave out
        return chosen
    return suited


def _export(args: argparse.Namespace, model: Network, weights: Path) -> ExportSummary:
    options = ExportOptions(
        model_name=args.name or args.model or weights.stem,
        weights_sha256=file_sha256(weights),
        reading=_reading_for(args, model),
        with_logits=args.with_logits,
        top=args.top,
        with_allowed=args.allowed,
        precision=args.precision,
        calibration=args.calibration,
    )
    more_crops = parity_data(args.parity_data, model.config) if args.parity_data else ()
    with _progress("comparing with PyTorch") as show:
        return export_artifact(model, options, args.output, force=args.force, more_crops=more_crops, progress=show)


def _print_summary(summary: ExportSummary) -> None:
    parity, metadata = summary.parity, summary.metadata
    print(f"wrote    {summary.path} ({summary.size_bytes / 1e6:.1f} MB, {summary.nodes} nodes)")
    print(
        f"model    {metadata.model_name}: {metadata.image_height}x{metadata.image_width} pixels, "
        f"{len(metadata.charset)} characters, up to {metadata.max_label_length} long, "
        f"{metadata.decode_mode} with {metadata.refine_iters} refinements, {metadata.precision}"
        + (", early exit" if metadata.early_exit else "")
    )
    print(f"parity   {parity.summary}")


if __name__ == "__main__":
    sys.exit(main())
