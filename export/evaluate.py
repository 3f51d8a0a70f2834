"""`parseq-evaluate`: `model.evaluate`, for checkpoints, exported artifacts and running services."""

from __future__ import annotations

import sys

from export.artifact import ArtifactError
from export.reader_options import ServiceError, add_artifact_option, add_url_option, open_reader
from model.evaluate import build_parser, conduct


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0, or 2 for a wrong call, or for data, an artifact or a service that cannot be used."""
    parser = build_parser()
    add_artifact_option(parser)
    add_url_option(parser)
    return conduct(parser.parse_args(argv), open_reader, more_errors=(ArtifactError, ServiceError))


if __name__ == "__main__":
    sys.exit(main())
