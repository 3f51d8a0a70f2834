"""What the service answers, as frozen dataclasses; members that the client does not know are ignored, as of newer services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

PREFIX: Final = "urn:parseq:problem:"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error of the service (RFC 9457)."""

    type: str
    """`urn:parseq:problem:...`; docs/api.md lists them."""
    title: str
    status: int
    detail: str = ""

    @property
    def slug(self) -> str:
        """The last part of the type, such as `unreadable-image`."""
        return self.type.removeprefix(PREFIX)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Problem:
        """From a problem document, members of which may be missing when a gateway wrote it."""
        status = int(document.get("status", 0))
        told = str(document.get("title", "")), str(document.get("detail", ""))
        return cls(str(document.get("type", "about:blank")), told[0], status, told[1])


@dataclass(frozen=True, slots=True)
class Character:
    """One character of a text."""

    char: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Alternative:
    """One of the most probable texts."""

    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a line."""

    text: str
    confidence: float
    box: tuple[int, int, int, int]
    """Left, top, right, bottom in pixels of the picture."""


@dataclass(frozen=True, slots=True)
class Result:
    """The text of a crop or a region, or why it has none."""

    id: str
    """Of the region, or the position of the crop among those that were given."""
    text: str = ""
    confidence: float = 0.0
    """From 0 to 1."""
    characters: tuple[Character, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    angle: int | None = None
    """Degrees, clockwise, by which the picture was turned to be read; `None`: it was not tried."""
    words: tuple[Word, ...] = ()
    uncertain: bool = False
    """The confidence is below what the server was set to trust."""
    error: Problem | None = None
    """Why there is no text."""
    model: str = ""
    model_version: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was read."""
        return self.error is None

    @classmethod
    def of(cls, id_: str, document: Mapping[str, Any], answer: Mapping[str, Any]) -> Result:
        """From one of the `results` of an answer."""
        model, version = str(answer.get("model", "")), str(answer.get("model_version", ""))
        if "error" in document:
            return cls(id_, error=Problem.of(document["error"]), model=model, model_version=version)
        return cls(
            id_,
            str(document["text"]),
            float(document["confidence"]),
            tuple(Character(each["char"], each["confidence"]) for each in document.get("characters") or ()),
            tuple(Alternative(each["text"], each["confidence"]) for each in document.get("alternatives") or ()),
            document.get("angle"),
            tuple(Word(each["text"], each["confidence"], _box(each["box"])) for each in document.get("words") or ()),
            bool(document.get("uncertain", False)),
            None,
            model,
            version,
        )


def _box(numbers: Any) -> tuple[int, int, int, int]:
    left, top, right, bottom = numbers
    return int(left), int(top), int(right), int(bottom)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may carry; the defaults are for services that do not tell."""

    max_body_bytes: int = 2**23
    max_crops_per_request: int = 32
    max_regions: int = 128


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is served."""

    name: str
    version: str
    aliases: tuple[str, ...] = ()
    architecture: str = ""
    charset: str | None = None
    """All characters it can give; `None`: more than are listed, ask `charset` of the client."""
    charset_url: str = ""
    max_label_length: int = 0
    max_alternatives: int = 0
    choice_of_characters: bool = False
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Model:
        """From one of the `models` of the list."""
        known = {each.name: document[each.name] for each in fields(cls) if each.name in document}
        limits = {
            each.name: document["limits"][each.name] for each in fields(Limits) if each.name in document.get("limits", {})
        }
        return cls(**{**known, "aliases": tuple(document.get("aliases", ())), "limits": Limits(**limits)})
