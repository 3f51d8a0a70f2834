"""The models that are served, by name: each with its own engine, all sharing one decode pool and the same cores.

Any model may be the only busy one, so each has lanes for all cores. The lanes of an idle model sleep and cost nothing;
the system divides the cores among models that are busy at once, and each learns how long its runs take then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from artifact.metadata import ArtifactMetadata
from service.core.recognizer import Recognizer
from service.engine.types import CropEngine, Observer
from service.errors import StartupError

if TYPE_CHECKING:  # a front process serves models without sessions, and ONNX Runtime takes much memory
    from service.sessions.artifact import LoadedArtifact
    from service.sessions.topology import Topology


class Model:
    """What requests see of a model that is served, wherever its engine runs.

    Args:
        name: What it is called.
        aliases: Other names that it answers to.
        version: What tells it from other artifacts of that name.
        metadata: Of its artifact.
        sha256: Of the file, in hexadecimal.
        provider: The execution provider in use.
    """

    engine: CropEngine
    recognizer: Recognizer
    observer: Observer

    def __init__(
        self, name: str, aliases: tuple[str, ...], version: str, metadata: ArtifactMetadata, sha256: str, provider: str
    ) -> None:
        self.name = name
        self.aliases = aliases
        self.version = version
        self.metadata = metadata
        self.sha256 = sha256
        self.provider = provider
        self.n_requests = 0
        """Requests that have found this model and have not ended yet."""
        self.unused: asyncio.Event | None = None
        """Set when `n_requests` becomes 0; `None` as long as nobody waits for that."""

    def request_ended(self) -> None:
        """One of `n_requests` has ended. On the event loop."""
        self.n_requests -= 1
        if self.unused is not None and not self.n_requests:
            self.unused.set()

    async def until_unused(self, timeout_s: float) -> None:
        """Wait until all requests for it have been answered. On the event loop, when no more can come."""
        if self.n_requests:
            self.unused = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.unused.wait(), timeout_s)


AnyModel = TypeVar("AnyModel", bound=Model, covariant=True)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model that shall be served comes from, and what it is called."""

    open: Callable[[Topology | None, int], LoadedArtifact]
    """Opens the file as it is at that time. Arguments: the topology to use if none is known for this file (`None`: measure
    one), and the cores that its lanes may use."""
    name: str | None = None
    """What the model is called; `None`: as its artifact says."""
    aliases: tuple[str, ...] = ()
    """Other names that it answers to."""
    key: Hashable = field(default_factory=object)
    """How a reload recognises the model: it replaces the one that is served with the same key."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model to serve from the start: its artifact, opened already, and where a reload finds it."""

    artifact: LoadedArtifact
    source: ModelSource


class Models(Generic[AnyModel]):
    """Finds served models by name or alias. Read and changed on the event loop, so that no request sees half a change.

    Args:
        models: At least one; the first is the default.

    Raises:
        StartupError: Two have a name in common.
    """

    def __init__(self, models: Sequence[AnyModel]) -> None:
        self.serve(models)

    def serve(self, models: Sequence[AnyModel]) -> None:
        """Serve these from now on; nothing changes on an error.

        Args:
            models: At least one; the first is the default.

        Raises:
            StartupError: Two have a name in common.
        """
        self._by_name = _by_name(models)
        self._models = tuple(models)
        self.default = models[0]
        """For requests that name none."""

    def __iter__(self) -> Iterator[AnyModel]:
        """The models in the order in which they were given."""
        return iter(self._models)

    def __len__(self) -> int:
        """The number of models."""
        return len(self._models)

    def get(self, name: str) -> AnyModel | None:
        """The model of this name or alias; `None`: there is none."""
        return self._by_name.get(name)

    def spoken_names(self) -> str:
        """The names of all models, for messages."""
        return ", ".join(model.name for model in self._models)


def _by_name(models: Sequence[AnyModel]) -> dict[str, AnyModel]:
    found: dict[str, AnyModel] = {}
    for model in models:
        for name in (model.name, *model.aliases):
            if found.setdefault(name, model) is not model:
                raise StartupError(f"two models are called {name!r}: name one of them in PARSEQ_ARTIFACT, as other=FILE")
    return found
