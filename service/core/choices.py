"""What a client may choose for its crops, and whether the model can do that: characters, alternatives."""

from __future__ import annotations

from typing import Final

from artifact.allowed import Allowed, AllowedError, UnknownCharactersError, entries_of
from artifact.metadata import ArtifactMetadata
from service.core.read_options import ReadOptions
from service.errors import INVALID_REQUEST, NO_ALTERNATIVES, NO_CHOICE_OF_CHARACTERS, UNKNOWN_CHARACTERS, Problem

KEPT_ROWS: Final = 64
"""Choices that are remembered, since clients make the same ones again and again."""
KEPT_CHARACTERS: Final = 256
"""The longest one that is remembered."""


class Choices:
    """Checks the options of requests for one model.

    Args:
        metadata: Of its artifact.
    """

    def __init__(self, metadata: ArtifactMetadata) -> None:
        self._metadata = metadata
        self._rows: dict[str, Allowed] = {}

    def row_for(self, options: ReadOptions) -> Allowed | None:
        """The entries of the vocabulary that may be read, bool `[entries]`; `None`: all of them.

        Raises:
            Problem: The model cannot read as the options say.
        """
        if options.alternatives and not self._metadata.top_count:
            detail = (
                "This model was exported without candidates; `parseq-export --top 5` adds them. /v1/models tells what each can."
            )
            raise Problem(NO_ALTERNATIVES, detail)
        if options.allowed is None:
            return None
        if not self._metadata.has_allowed:
            detail = (
                "This model was exported without a choice; `parseq-export --allowed` adds it. /v1/models tells what each can."
            )
            raise Problem(NO_CHOICE_OF_CHARACTERS, detail)
        row = self._rows.get(options.allowed)
        if row is None:
            row = self._found(options.allowed)
            if len(options.allowed) <= KEPT_CHARACTERS:
                if len(self._rows) == KEPT_ROWS:
                    del self._rows[next(iter(self._rows))]
                self._rows[options.allowed] = row
        return row

    def _found(self, wanted: str) -> Allowed:
        try:
            row = entries_of(wanted, self._metadata.vocabulary)
        except UnknownCharactersError as error:
            raise Problem(UNKNOWN_CHARACTERS, _sentence(error)) from error
        except AllowedError as error:  # dialects refuse that before
            raise Problem(INVALID_REQUEST, _sentence(error)) from error
        row.flags.writeable = False  # it is shared
        return row


def _sentence(error: AllowedError) -> str:
    told = str(error)
    return f"{told[0].upper()}{told[1:]}."
