"""Command-line options for what reads: a checkpoint, an artifact or a running service."""

from __future__ import annotations

import argparse
from pathlib import Path

from artifact.metadata import ArtifactError
from model.errors import ConfigError
from model.options import network_reader
from reading.readers.interface import Reader

OF_CHECKPOINTS = ("model", "config", "weights", "decode", "refine_iters", "device")


class ServiceError(ValueError):
    """There is no such service, or it does not answer as one; the message says what it said."""


def add_artifact_option(parser: argparse.ArgumentParser) -> None:
    """Add `--artifact`, beside the options of checkpoints."""
    parser.add_argument("--artifact", type=Path, metavar="FILE.onnx", help="an exported artifact instead of a checkpoint")


def add_url_option(parser: argparse.ArgumentParser) -> None:
    """Add `--url`."""
    parser.add_argument("--url", metavar="http://...", help="a running service instead of a checkpoint")


def check_one_source(args: argparse.Namespace) -> None:
    """See that the options name one thing to read with.

    Raises:
        ConfigError: they name several.
    """
    others = [f"--{name}" for name in ("artifact", "url") if getattr(args, name, None)]
    if len(others) > 1:
        raise ConfigError(f"give either {' or '.join(others)}")
    clash = next((name for name in OF_CHECKPOINTS if getattr(args, name) is not None), None)
    if others and clash:
        option = clash.replace("_", "-")
        raise ConfigError(f"--{option} is for checkpoints: what {others[0]} names has its own; leave one of them out")


def open_reader(args: argparse.Namespace) -> Reader:
    """What the options name.

    Raises:
        ConfigError, WeightsError, DownloadError: see `model.checkpoints.loading.load`.
        ArtifactError: the artifact cannot be used.
        ServiceError: the service cannot be used.
    """
    check_one_source(args)
    try:
        # Late: who evaluates checkpoints needs neither package.
        if args.artifact:
            from reading.readers.artifact import ArtifactReader

            return ArtifactReader(args.artifact, args.threads)
        if getattr(args, "url", None):
            from reading.readers.service import ServiceReader

            return ServiceReader(args.url)
    except ModuleNotFoundError as error:
        raise ArtifactError(f"this needs the package {error.name}: install the extra `export`") from None
    return network_reader(args)
