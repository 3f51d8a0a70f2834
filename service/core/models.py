"""The models that are served, by name: each with its own engine, all with one decode pool and one budget of cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from service.core.served_model import ServedModel
from service.errors import StartupError
from service.sessions.artifact import LoadedArtifact
from service.sessions.topology import Topology


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model that shall be served."""

    artifact: LoadedArtifact
    """Opened for its share of the cores, see `cores_of_each`."""
    reopen: Callable[[Topology, int], LoadedArtifact]
    """Opens the file as it is then, to be run like the present one unless more is known, with lanes for so many cores."""
    aliases: tuple[str, ...] = ()
    """Names beside the one in the artifact."""


def cores_of_each(budget: int, n_models: int) -> int:
    """Cores for the lanes of each model: any of them may be the busy one, so they share the budget evenly; at least 1."""
    return max(1, budget // n_models)


class Models:
    """Finds served models by name or alias. Read and changed on the event loop, so that no request sees half a change.

    Args:
        models: At least one; the first is the default.

    Raises:
        StartupError: Two have a name in common.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = list(models)
        self._by_name = _by_name(models)
        self.default = self._models[0]
        """For requests that name none."""

    def __iter__(self) -> Iterator[ServedModel]:
        """In the order in which they were given."""
        return iter(self._models)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._models)

    def __getitem__(self, place: int) -> ServedModel:
        """The model that has this place now; a reload puts the new model into the place of the old one."""
        return self._models[place]

    def get(self, name: str) -> ServedModel | None:
        """The model of this name or alias; `None`: there is none."""
        return self._by_name.get(name)

    def replace(self, place: int, new: ServedModel) -> None:
        """Serve another model from now on; nothing changes on an error.

        Raises:
            StartupError: Another model has its name.
        """
        models = list(self._models)
        models[place] = new
        self._by_name = _by_name(models)
        self._models = models
        self.default = models[0]


def _by_name(models: Sequence[ServedModel]) -> dict[str, ServedModel]:
    found: dict[str, ServedModel] = {}
    for model in models:
        for name in (model.name, *model.aliases):
            if found.setdefault(name, model) is not model:
                raise StartupError(f"two models are called {name!r}: export one with another --name, or give it another alias")
    return found
