"""`parseq-read`: `model.read`, for checkpoints and exported artifacts."""

from __future__ import annotations

import sys

from export.artifact import ArtifactError
from export.reader_options import add_artifact_option, open_reader
from model.read import build_parser, conduct


def main(argv: list[str] | None = None) -> int:
    """Entry point; see `model.read` for the exit codes."""
    parser = build_parser()
    add_artifact_option(parser)
    return conduct(parser.parse_args(argv), open_reader, more_errors=(ArtifactError,))


if __name__ == "__main__":
    sys.exit(main())
