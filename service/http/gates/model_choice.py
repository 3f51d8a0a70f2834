"""Which of the served models a request is for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from service.core.served_model import ServedModel
from service.errors import NOT_FOUND, Problem
from service.http.head import Head


class Models(Protocol):
    """The models that are served now."""

    @property
    def default(self) -> ServedModel:
        """For requests that name none."""
        ...

    def get(self, name: str) -> ServedModel | None:
        """The model of this name or alias; `None`: there is none."""
        ...

    def __iter__(self) -> Iterator[ServedModel]: ...


class ModelChoice:
    """Finds the model that a request names.

    Args:
        models: Any of which may be replaced at any time.
    """

    def __init__(self, models: Models) -> None:
        self._models = models

    def check(self, head: Head) -> Problem | None:
        """Set `head.model` for a request to recognise; refuse one for a model that is not served."""
        announced = head.announced
        if announced is not None:
            name = announced.model
            head.model = self._models.default if name is None else self._models.get(name)
            if head.model is None:
                return Problem(NOT_FOUND, "There is no such model; /v1/models lists those there are.")
        return None
