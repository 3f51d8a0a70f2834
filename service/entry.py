"""The console script `parseq-serve`. It handles signals first and imports afterwards, which takes a second or so."""

from __future__ import annotations

from service.process.early_signals import hold


def serve() -> None:
    """`parseq-serve`, to the end of the process."""
    hold()
    from service.__main__ import run

    run()
