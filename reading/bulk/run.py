"""A run: which parts are left, who reads them, and what becomes of parts that fail."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from reading.bulk.engine import Advanced, Died, Done, Engine, EngineError, Event, Failed
from reading.bulk.folder import sweep, write_manifest
from reading.bulk.parts import Job, Part, Settings
from reading.bulk.progress import Progress
from reading.bulk.results import errors_in, finished, schema_of
from reading.bulk.sources.interface import Source
from reading.bulk.worker import marked_row

RETRIES: Final = 2
"""So often a part is tried again before it is read row by row."""
CAREFUL_RETRIES: Final = 2
"""So often a worker may end at the same place of a part that is read row by row."""
MOST_DEATHS: Final = 12
"""If so many workers end one after another and nothing is read, the run ends."""
WAIT_S: Final = 0.5


class Run:
    """One run of the command.

    Args:
        sources: What is read.
        parts: All of its parts.
        settings: How they are read.
        retry_errors: Whether rows with errors are read again.
    """

    def __init__(self, sources: Sequence[Source], parts: Sequence[Part], settings: Settings, *, retry_errors: bool) -> None:
        self.sources = sources
        self.parts = parts
        self.settings = settings
        self.abandoned: dict[str, str] = {}
        """Parts that could not be read, and why."""
        self.damaged = 0
        """Files of finished parts that were damaged and are made again."""
        self.errors: dict[str, int] = {}
        """Rows with errors of each finished part, by its key."""
        self._queue: deque[Job] = deque()
        self._running = 0
        self._advanced: Counter[str] = Counter()
        self._deaths_at: Counter[tuple[str, int | None]] = Counter()
        self._deaths = 0
        self._began = datetime.now(UTC)
        self._find_finished(retry_errors)
        finished_rows = sum(part.rows for part in parts) - sum(job.part.rows for job in self._queue)
        self.progress = Progress(sum(part.rows for part in parts), finished_rows)
        self.progress.errors = sum(self.errors.values())

    @property
    def left(self) -> int:
        """Parts to be read."""
        return len(self._queue) + self._running

    @property
    def complete(self) -> bool:
        """Whether all parts are finished."""
        return len(self.errors) == len(self.parts)

    def prepare(self) -> None:
        """Remove what a killed run has left, and say in the manifest that this one has begun.

        Raises:
            OSError: The disk refuses.
        """
        sweep(self.settings.output)
        self.write_manifest()

    def read(self, open_engine: Callable[[int], Engine]) -> None:
        """Read all parts that are left.

        Args:
            open_engine: Starts the workers, given how many parts there are for them.

        Raises:
            EngineError: The run cannot go on.
        """
        if not self._queue:
            return
        with closing(open_engine(len(self._queue))) as engine:
            while self.left:
                while self._queue and engine.free():
                    engine.give(self._queue.popleft())
                    self._running += 1
                for event in engine.wait(WAIT_S):
                    self._take(event)
                self.progress.tell()

    def write_manifest(self) -> None:
        """Write what is in the folder.

        Raises:
            OSError: The disk refuses.
        """
        rows = {part.key: part.rows for part in self.parts}
        totals = {
            "rows": sum(rows[key] for key in self.errors),
            "errors": sum(self.errors.values()),
            "parts": len(self.errors),
            "rows_expected": sum(rows.values()),
            "parts_expected": len(rows),
        }
        options = self.settings.told
        manifest: dict[str, Any] = {
            "version": options.pop("version"),
            "complete": self.complete,
            "artifact": {"name": str(self.settings.reader.artifact), "sha256": options.pop("artifact_sha256")},
            "options": options,
            "totals": totals,
            "sources": [
                {"name": each.name, "rows": each.total} | ({"damage": each.damage} if each.damage else {})
                for each in self.sources
            ],
            "parts": [
                {
                    "file": part.file_name,
                    "source": part.source.name,
                    "start": part.source.start,
                    "stop": part.source.stop,
                    "errors": self.errors[part.key],
                }
                for part in self.parts
                if part.key in self.errors
            ],
            "abandoned": self.abandoned,
            "began": self._began.isoformat(timespec="seconds"),
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_manifest(self.settings.output, manifest)

    def _find_finished(self, retry_errors: bool) -> None:
        schema = schema_of(self.settings)
        for part in self.parts:
            table = finished(part, self.settings.output, schema)
            if table is None:
                self.damaged += (self.settings.output / part.file_name).exists()
                self._queue.append(Job(part))
            elif retry_errors and errors_in(table):
                self._queue.append(Job(part, errors_only=True))
            else:
                self.errors[part.key] = errors_in(table)

    def _take(self, event: Event) -> None:
        key = event.job.part.key
        if isinstance(event, Advanced):
            self._advanced[key] += event.rows
            self.progress.advance(event.rows)
            self._deaths = 0
            return
        self._running -= 1
        if isinstance(event, Done):
            # Ray's actors tell of whole parts only; of a part of which a few rows were read again the others count too.
            self.progress.advance(event.job.part.rows - self._advanced.pop(key, 0))
            self.progress.errors += event.errors
            self.errors[key] = event.errors
            self._deaths = 0
            return
        self.progress.advance(-self._advanced.pop(key, 0))
        if isinstance(event, Failed):
            self._failed(event)
        else:
            self._died(event)

    def _failed(self, event: Failed) -> None:
        if event.job.careful:
            self._abandon(event.job, event.reason)
        else:
            self._again(event.job, event.reason)

    def _died(self, event: Died) -> None:
        self._deaths += 1
        if self._deaths > MOST_DEATHS:
            raise EngineError(f"workers end again and again ({event.reason}): is there enough memory for them?")
        job = event.job
        if not job.careful:
            self._again(job, event.reason)
            return
        row = marked_row(job.part, self.settings.output)
        self._deaths_at[job.part.key, row] += 1
        if self._deaths_at[job.part.key, row] <= CAREFUL_RETRIES:
            self._queue.append(job)
        elif row is None:
            self._abandon(job, event.reason)
        else:
            self._queue.append(replace(job, given_up=job.given_up | {row}))

    def _again(self, job: Job, reason: str) -> None:
        # Behind all others, so that what was wrong may be over by then.
        careful = job.attempt >= RETRIES
        self._queue.append(replace(job, attempt=job.attempt + 1, careful=careful))
        how = "row by row" if careful else "again"
        self.progress.note(f"parseq-bulk: {job.part.told}: {reason}; reading them {how}")

    def _abandon(self, job: Job, reason: str) -> None:
        self.abandoned[job.part.key] = f"{job.part.told}: {reason}"
        self.progress.note(f"parseq-bulk: {job.part.told} cannot be read: {reason}")
