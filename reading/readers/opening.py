"""From options to a reader. Each kind is imported only when it is asked for, so that an artifact needs no torch."""

from __future__ import annotations

from reading.readers.interface import Reader, ReaderError
from reading.readers.options import ReaderOptions
from reading.readers.views import ViewsReader


def open_reader(options: ReaderOptions) -> Reader:
    """Open the reader that the options name; it reads crops turned and in parts if they say so.

    Raises:
        ReaderError: They name several, or one that cannot be used.
        ModuleNotFoundError: What that kind needs is not installed.
    """
    others = [f"--{name}" for name in ("artifact", "url") if getattr(options, name)]
    if len(others) > 1:
        raise ReaderError(f"give either {' or '.join(others)}")
    if others and options.of_checkpoint:
        raise ReaderError(
            f"--{options.of_checkpoint} is for checkpoints: what {others[0]} names has its own; leave one of them out"
        )
    if options.artifact:
        from reading.readers.artifact import ArtifactReader

        reader = ArtifactReader(options.artifact, options.threads, alternatives=options.alternatives, allowed=options.allowed)
        return _with_views(reader, options)
    if options.url:
        from reading.readers.service import ServiceReader

        return ServiceReader(
            options.url,
            alternatives=options.alternatives,
            allowed=options.allowed,
            orientation=options.orientation,
            split=options.split,
        )
    from reading.readers.checkpoint import open_checkpoint

    return _with_views(open_checkpoint(options), options)


def _with_views(reader: Reader, options: ReaderOptions) -> Reader:
    if options.orientation == "upright" and options.split == "none":
        return reader
    return ViewsReader(reader, options.orientation, options.split == "auto")
