"""Command-line options that several jobs share: which network to use, how to spell labels."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from model.checkpoints.loading import load
from model.errors import ConfigError
from model.recognisers.parseq.network import PARSeq
from model.recognisers.registry import read_config
from reading.readers.checkpoint import NetworkReader
from reading.readers.interface import Reader


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `load_network` reads."""
    parser.add_argument("--model", help="architecture by name (default: parseq-nano, or what the checkpoint says)")
    parser.add_argument("--config", type=Path, help="architecture from a JSON file instead")
    parser.add_argument("--weights", type=Path, help="weights file; without it the bundled or published weights of --model")
    parser.add_argument(
        "--decode", choices=["ar", "nar"], help="autoregressive or all characters at once (default: the config's)"
    )
    parser.add_argument("--refine-iters", type=int, help="refinement passes (default: the config's)")
    parser.add_argument("--device", help="where PyTorch computes, such as cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: the library's choice)")


def add_label_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that say how labels are spelt."""
    parser.add_argument(
        "--normalise-unicode",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="spell characters that the charset lacks in ASCII, é as e (default: yes)",
    )
    parser.add_argument(
        "--keep-whitespace",
        action=argparse.BooleanOptionalAction,
        help="keep spaces in labels (default: if the charset has the space)",
    )
    parser.add_argument(
        "--keep-empty",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="use crops whose label is empty: they show no text (default: leave them out)",
    )


def positive(text: str) -> int:
    """A whole number from 1, for `type` of an option.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def load_network(args: argparse.Namespace) -> PARSeq:
    """The network the options ask for.

    Raises:
        ConfigError, WeightsError, DownloadError: see `model.checkpoints.loading.load`.
    """
    config = read_config(args.config) if args.config else None
    if args.weights is None and config is None:
        network = load(args.model or "parseq-nano", pretrained=True)
    else:
        network = load(args.model, config=config, weights=args.weights)
    assert isinstance(network, PARSeq)
    changes = {}
    if args.decode:
        changes["decode_ar"] = args.decode == "ar"
    if args.refine_iters is not None:
        changes["refine_iters"] = args.refine_iters
    network.config = replace(network.config, **changes)
    return network


def network_reader(args: argparse.Namespace) -> Reader:
    """The network the options ask for, as a reader.

    Raises:
        ConfigError, WeightsError, DownloadError: see `model.checkpoints.loading.load`.
    """
    network = load_network(args)
    if args.threads > 0:
        torch.set_num_threads(args.threads)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return NetworkReader(network, str(args.weights or args.model or args.config or "parseq-nano"), device)
    except (RuntimeError, AssertionError) as error:  # what torch raises for a device that is not there, or none at all
        raise ConfigError(f"cannot compute on {device}: {str(error).splitlines()[0]}") from None
