"""The models that are served, by name: each with its own engine, all with one decode pool and the same cores.

Any of them may be the busy one, so the lanes of each are for all cores. The lanes of an idle model sleep and cost nothing;
models that are busy at once share the cores as the system divides them, and each learns how long its runs take then.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from service.core.served_model import ServedModel
from service.errors import StartupError
from service.sessions.artifact import LoadedArtifact
from service.sessions.topology import Topology


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model that shall be served comes from, and what it is called."""

    open: Callable[[Topology | None, int], LoadedArtifact]
    """Opens the file as it is then, for so many cores; to be run like the topology unless more is known, which is measured
    without one."""
    name: str | None = None
    """`None`: the one in the artifact."""
    aliases: tuple[str, ...] = ()
    """Names beside it."""
    key: Hashable = field(default_factory=object)
    """What a reload knows it by: what is served with the same key is replaced."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model to begin with."""

    artifact: LoadedArtifact
    source: ModelSource


class Models:
    """Finds served models by name or alias. Read and changed on the event loop, so that no request sees half a change.

    Args:
        models: At least one; the first is the default.

    Raises:
        StartupError: Two have a name in common.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.serve(models)

    def serve(self, models: Sequence[ServedModel]) -> None:
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

    def __iter__(self) -> Iterator[ServedModel]:
        """In the order in which they were given."""
        return iter(self._models)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._models)

    def get(self, name: str) -> ServedModel | None:
        """The model of this name or alias; `None`: there is none."""
        return self._by_name.get(name)

    def spoken_names(self) -> str:
        """The names of all, for humans."""
        return ", ".join(model.name for model in self._models)


def _by_name(models: Sequence[ServedModel]) -> dict[str, ServedModel]:
    found: dict[str, ServedModel] = {}
    for model in models:
        for name in (model.name, *model.aliases):
            if found.setdefault(name, model) is not model:
                raise StartupError(f"two models are called {name!r}: name one of them in PARSEQ_ARTIFACT, as other=FILE")
    return found
