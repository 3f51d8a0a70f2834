"""What a protocol has to provide; all else (gates, admission, reading, counting) is the same for all protocols."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from starlette.routing import compile_path

from service.core.crop_decoder import EncodedImage
from service.core.models import Model
from service.core.read_options import NO_OPTIONS, ReadOptions
from service.core.recognizer import CropResult
from service.errors import Problem
from service.http.bodies.body import Body
from service.http.head import Announcement, Head
from service.http.problems import Answer, problem_document

NOTHING_ANNOUNCED: Final = Announcement()


@dataclass(slots=True)
class Crops:
    """The images of a request; a dialect may subclass it to keep what else it needs for the answer."""

    images: list[EncodedImage]
    timeout_ms: float
    """Milliseconds that the client allows; infinite: as the settings say."""
    bulk: bool | None = field(default=None, kw_only=True)
    """Whether single crops of other requests go first; `None`: they do if there are several images."""
    options: ReadOptions = field(default=NO_OPTIONS, kw_only=True)
    """How the images are to be read."""


class Dialect(ABC):
    """One protocol. Any of its methods may raise a `Problem`, which is then the answer."""

    paths: Sequence[str]
    """Paths of its POST requests; `{name}` stands for one segment, as in `/v2/models/{name}/infer`."""
    root: str | None = None
    """At this path and below it, other endpoints word problems as this dialect does, and need an API key."""
    probes: Collection[str] = ()
    """Paths below `root` that need no key."""

    def announce(self, head: Head) -> Announcement:
        """What the head alone says. It must not raise: `parse` reports faults."""
        return NOTHING_ANNOUNCED

    @abstractmethod
    async def parse(self, head: Head, body: Body) -> Crops:
        """The images of a request, at least one. Faults of the head should be reported before the body is read."""

    @abstractmethod
    async def answer(self, head: Head, crops: Crops, results: Sequence[CropResult], model: Model, total_s: float) -> Answer:
        """The answer to a request that was read.

        Args:
            head: Of the request.
            crops: As `parse` gave them.
            results: One for each crop, in order; a failed one has a `Problem`. A problem raised here becomes the whole answer.
            model: The model that read them.
            total_s: Seconds from the complete request to now.
        """

    def problem(self, problem: Problem) -> Answer:
        """The answer to a request that failed as a whole."""
        return problem_document(problem)


class Dialects:
    """Finds the dialect of a path.

    Args:
        dialects: If two claim a path, the first has it.
    """

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self.paths = [path for dialect in dialects for path in dialect.paths]
        self.probes = frozenset(path for dialect in dialects for path in dialect.probes)
        self._rooted = [(dialect.root, dialect) for dialect in dialects if dialect.root is not None]
        self._fixed: dict[str, Dialect] = {}
        self._patterns = []
        for dialect in dialects:
            for path in dialect.paths:
                if "{" in path:
                    self._patterns.append((compile_path(path)[0], dialect, path))
                else:
                    self._fixed.setdefault(path, dialect)

    def of(self, path: str) -> Dialect | None:
        """The dialect that answers POST requests to a path; `None`: none does."""
        dialect = self._fixed.get(path)
        if dialect is None and self._patterns:
            for pattern, other, _ in self._patterns:
                if pattern.match(path):
                    return other
        return dialect

    def route_of(self, path: str) -> str:
        """The path of a dialect that one of a request is an instance of, as the dialect writes it."""
        return path if path in self._fixed else next((route for pattern, _, route in self._patterns if pattern.match(path)), "")

    def around(self, path: str) -> Dialect | None:
        """The dialect whose `root` covers a path, or that answers it; `None`: there is none."""
        rooted = (dialect for root, dialect in self._rooted if path == root or path.startswith(f"{root}/"))
        return self.of(path) or next(rooted, None)
