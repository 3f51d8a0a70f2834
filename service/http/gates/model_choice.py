"""Which of the served models a request is for."""

from __future__ import annotations

from service.core.models import Models
from service.errors import NOT_FOUND, Problem
from service.http.head import Head


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
