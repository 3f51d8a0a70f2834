"""`parseq-bulk`: read word crops by the million, into Parquet files.

Sources are folders of pictures, lists of picture files (.txt), Parquet and Arrow tables, tar archives (WebDataset) and LMDB
archives, local or by URL. A run that has ended for any reason goes on where it was when it is started again.
Exit status: 0 all was read (crops with errors have their reason in the results); 1 with --strict: some crops have errors;
2 a wrong call, or nothing to read; 3 the run could not be finished: start it again when the cause is gone.
"""

from __future__ import annotations

import argparse
import hashlib
import signal
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Final

from reading.bulk.cores import usable_cores
from reading.bulk.engine import Engine, EngineError
from reading.bulk.folder import FolderError, locked, strangers
from reading.bulk.parts import Part, Settings, cut
from reading.bulk.run import Run
from reading.bulk.sources.finding import Columns, find_sources
from reading.bulk.sources.interface import Source, SourceError, reason_of
from reading.readers.artifact import BUNDLED, artifact_of
from reading.readers.interface import ReaderError
from reading.readers.opening import open_reader
from reading.readers.options import ReaderOptions, add_allowed_option, add_view_options, number_of_alternatives, positive

EXIT_ERRORS: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNFINISHED: Final = 3


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="parseq-bulk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="folder, list, table, archive, picture, pattern or URL")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--artifact", default=BUNDLED, metavar="FILE.onnx", help="what reads (default: the one bundled with the service)"
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="processes or actors (default: a core each)")
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="threads of a worker (default: %(default)s)")
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="crops at a time (default: %(default)s)")
    parser.add_argument(
        "--rows-per-part", type=positive, default=10000, metavar="N", help="crops in a file of results (default: %(default)s)"
    )
    parser.add_argument(
        "--image-column", default=Columns().image, metavar="NAME", help="of tables; of tar archives a suffix (default: image)"
    )
    parser.add_argument("--id-column", metavar="NAME", help="of tables (default: id if there is one, else the row's number)")
    parser.add_argument("--characters", action="store_true", help="also the confidence of each character")
    parser.add_argument(
        "--alternatives",
        type=number_of_alternatives,
        default=0,
        metavar="N",
        help="also the most probable texts of each crop, so many at most",
    )
    add_allowed_option(parser, "--charset")
    add_view_options(parser)
    parser.add_argument("--retry-errors", action="store_true", help="read crops again that have errors in finished parts")
    parser.add_argument("--overwrite", action="store_true", help="remove results of other sources, artifacts or options in DIR")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if any crop has an error")
    parser.add_argument("--dry-run", action="store_true", help="say what would be read, and read and write nothing")
    parser.add_argument("--engine", choices=["local", "ray"], default="local", help="what runs the workers (default: local)")
    parser.add_argument("--address", help="of a Ray cluster, such as auto or ray://host:10001 (default: Ray on this machine)")
    return parser


def settings_of(args: argparse.Namespace) -> Settings:
    """How to read; the artifact is opened, to see that it can.

    Raises:
        ReaderError: It cannot, or cannot be asked for that.
    """
    artifact = artifact_of(args.artifact).resolve()
    options = ReaderOptions(
        artifact=artifact,
        threads=args.threads,
        alternatives=args.alternatives,
        allowed=args.allowed,
        orientation=args.orientation,
        split=args.split,
    )
    with closing(open_reader(options)):
        digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
    return Settings(options, args.output.absolute(), digest, characters=args.characters, batch_size=args.batch_size)


def open_engine(args: argparse.Namespace, settings: Settings, parts: int) -> Engine:
    """Start the workers: not more than there are parts.

    Raises:
        EngineError: They cannot be started.
        ModuleNotFoundError: Ray is not installed.
    """
    if args.engine == "ray":
        from reading.bulk.ray_actors import RayActors

        return RayActors(settings, args.workers or 0, parts, args.address)
    from reading.bulk.processes import Processes

    return Processes(settings, min(parts, args.workers or max(1, usable_cores() // args.threads)))


def tell_plan(sources: Sequence[Source], run: Run) -> None:
    """Print what there is to read."""
    for source in sources:
        damaged = f" ({source.damage})" if source.damage else ""
        print(f"{source.name}: {source.count:,} crops{damaged}")
    print(f"{sum(part.rows for part in run.parts):,} crops in {len(run.parts):,} parts, of which {run.left:,} are left to read")


def refuse(reason: str, code: int = EXIT_USAGE) -> int:
    """Report why the run does not begin or go on; returns the exit code."""
    print(f"parseq-bulk: {reason}", file=sys.stderr)
    return code


def check_strangers(args: argparse.Namespace, parts: Sequence[Part]) -> None:
    """Keep results of something else out of the folder.

    Raises:
        FolderError: There are some, and they shall not be removed.
    """
    found = strangers(args.output, (part.file_name for part in parts))
    if found and not args.overwrite:
        raise FolderError(
            f"{args.output} holds {len(found)} Parquet files of other sources, artifacts or options than these (such as "
            f"{found[0].name}; has a source changed, or --rows-per-part?): give another --output, or --overwrite to remove them"
        )
    if not args.dry_run:
        for path in found:
            path.unlink(missing_ok=True)


def read(args: argparse.Namespace, settings: Settings, sources: Sequence[Source], parts: Sequence[Part]) -> int:
    """Read what is left, in a folder that is ours; returns the exit code."""
    run = Run(sources, parts, settings, retry_errors=args.retry_errors)
    if run.damaged:
        run.progress.note(f"parseq-bulk: {run.damaged} finished parts are damaged: they are read again")
    for source in sources:
        if source.damage:
            run.progress.note(f"parseq-bulk: {source.name}: {source.damage}")
    stopped = None
    try:
        run.prepare()
        run.read(partial(open_engine, args, settings))
    except EngineError as error:
        stopped = str(error)
    except OSError as error:
        stopped = f"cannot write to {args.output}: {error.strerror or reason_of(error)}"
    except KeyboardInterrupt:
        stopped = "stopped"
    try:
        run.write_manifest()
    except OSError as error:
        stopped = stopped or f"cannot write to {args.output}: {error.strerror}"
    return tell_end(args, run, stopped)


def tell_end(args: argparse.Namespace, run: Run, stopped: str | None) -> int:
    """Say how the run has ended; returns the exit code."""
    errors = sum(run.errors.values())
    run.progress.note(f"parseq-bulk: {run.progress.line()}")
    if stopped or run.abandoned:
        reason = stopped or f"{len(run.abandoned)} parts could not be read"
        return refuse(f"{reason}; what is finished is kept: the same command goes on from there", EXIT_UNFINISHED)
    if errors:
        told = f"{errors:,} crops could not be read: the column `error` in {args.output} says why"
        return refuse(told, EXIT_ERRORS if args.strict else 0)
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    args = build_parser().parse_args(argv)
    if "://" in str(args.output) or ":/" in str(args.output):
        return refuse("--output must be a folder of this machine, or of a file system that is mounted")
    if args.address and args.engine != "ray":
        return refuse("--address is for --engine ray: add that")
    with suppress(ValueError):  # only the main thread may
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        settings = settings_of(args)
        sources = find_sources(args.sources, Columns(args.image_column, args.id_column), args.output)
        parts = list(cut(sources, args.rows_per_part, settings))
        if args.dry_run:
            check_strangers(args, parts)
            tell_plan(sources, Run(sources, parts, settings, retry_errors=args.retry_errors))
            return 0
        with locked(args.output):
            check_strangers(args, parts)
            return read(args, settings, sources, parts)
    except (ReaderError, SourceError, FolderError) as error:
        return refuse(str(error))
    except KeyboardInterrupt:
        return refuse("stopped", EXIT_UNFINISHED)


if __name__ == "__main__":
    sys.exit(main())
