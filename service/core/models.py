"""The models that are served, by name: each with its own engine, all sharing one decode pool and the same cores.

Any model may be the only busy one, so each has lanes for all cores. The lanes of an idle model sleep and cost nothing;
the system divides the cores among models that are busy at once, and each learns how long its runs take then.
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
        """The models in the order in which they were given."""
        return iter(self._models)

    def __len__(self) -> int:
        """The number of models."""
        return len(self._models)

    def get(self, name: str) -> ServedModel | None:
        """The model of this name or alias; `None`: there is none."""
        return self._by_name.get(name)

    def spoken_names(self) -> str:
        """The names of all models, for messages."""
        return ", ".join(model.name for model in self._models)


def _by_name(models: Sequence[ServedModel]) -> dict[str, ServedModel]:
    found: dict[str, ServedModel] = {}
    for model in models:
        for name in (model.name, *model.aliases):
            if found.setdefault(name, model) is not model:
                raise StartupError(f"two models are called {name!r}: name one of them in PARSEQ_ARTIFACT, as other=FILE")
    return found
