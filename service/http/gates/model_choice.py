"""Which of the served models a request is for."""

from __future__ import annotations

from typing import Final

from service.core.models import Model, Models
from service.errors import NOT_FOUND, Problem
from service.http.head import Head

MAX_TOLD_CHARACTERS: Final = 40


def no_model(name: str, models: Models[Model]) -> Problem:
    """The problem of a request for a model that is not served."""
    return Problem(NOT_FOUND, f"There is no model `{name[:MAX_TOLD_CHARACTERS]}`; those there are: {models.spoken_names()}.")


def no_version(model: Model) -> Problem:
    """The problem of a request for a version that is not served."""
    return Problem(NOT_FOUND, f"Of model `{model.name}` there is version {model.version} and no other.")


def find_model(models: Models[Model], name: str, version: str | None) -> Model:
    """The model of this name, or alias, for those who ask about it; recognition passes `ModelChoice`, which costs no call more.

    Args:
        models: The served models.
        name: Its name or an alias.
        version: The version that is wanted; `None`: any.

    Raises:
        Problem: There is no such model, or not in this version.
    """
    model = models.get(name)
    if model is None:
        raise no_model(name, models)
    if version not in (None, model.version):
        raise no_version(model)
    return model


class ModelChoice:
    """Finds the model that a request names.

    Args:
        models: The served models; each may be replaced at any time.
    """

    def __init__(self, models: Models[Model]) -> None:
        self._models = models

    def check(self, head: Head) -> Problem | None:
        """Set `head.model` of a recognition request, which uses it until it ends; refuse it if the model is not served."""
        announced = head.announced
        if announced is not None:
            name = announced.model
            model = head.model = self._models.default if name is None else self._models.get(name)
            if model is None:
                return no_model(name or "", self._models)
            model.n_requests += 1
            if announced.version is not None and announced.version != model.version:
                return no_version(model)
        return None
