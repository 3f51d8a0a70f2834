"""What a protocol has to know; all else (gates, admission, reading, counting) is the same for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from starlette.routing import compile_path

from service.core.recognizer import CropResult, EncodedImage
from service.core.served_model import ServedModel
from service.errors import Problem
from service.http.bodies.body import Body
from service.http.head import Announcement, Head
from service.http.problems import Answer, problem_document

NOTHING_ANNOUNCED: Final = Announcement()


@dataclass(slots=True)
class Crops:
    """The images of a request; a dialect may keep here what else it needs for the answer."""

    images: list[EncodedImage]
    timeout_ms: float
    """What the client gives us for them; infinite: what the settings have."""
    bulk: bool | None = field(default=None, kw_only=True)
    """Whether single crops of others go first; `None`: if there are several."""


class Dialect(ABC):
    """One protocol. Any of its methods may raise a `Problem`, which is then the answer."""

    paths: Sequence[str]
    """Of POST; `{name}` stands for one segment, as in `/v2/models/{name}/infer`."""
    root: str | None = None
    """What answers any path that is this or below it words its problems as this dialect does, and wants a key."""
    probes: Collection[str] = ()
    """Paths below it that want none."""

    def announce(self, head: Head) -> Announcement:
        """What the head alone says. It must not raise: what is wrong is for `parse` to say."""
        return NOTHING_ANNOUNCED

    @abstractmethod
    async def parse(self, head: Head, body: Body) -> Crops:
        """The images of a request, at least one. What is wrong with the head should be said before the body is read."""

    @abstractmethod
    async def answer(
        self, head: Head, crops: Crops, results: Sequence[CropResult], model: ServedModel, total_s: float
    ) -> Answer:
        """The answer to a request that was read.

        Args:
            head: Of the request.
            crops: As `parse` gave them.
            results: One for each, in order; what failed has a `Problem`. A problem that is raised here is the whole answer.
            model: The one that read them.
            total_s: From the complete request to now.
        """

    def problem(self, problem: Problem) -> Answer:
        """The answer to a request of these paths that failed as a whole."""
        return problem_document(problem)


class Dialects:
    """Whose path is whose.

    Args:
        dialects: Of two that claim a path the first has it.
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
        """The dialect of a path; `None`: it is none's."""
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
        """The dialect that a path is part of, whoever answers it; `None`: no dialect."""
        rooted = (dialect for root, dialect in self._rooted if path == root or path.startswith(f"{root}/"))
        return self.of(path) or next(rooted, None)
