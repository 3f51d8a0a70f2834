"""Requests of every kind at random, each with the answers that would be right."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.toy_artifact import CHARSET, png_of

MAX_CROPS = 8
TEXTS = 200
"""Different crops; as many as make a mix-up show."""
SHED = {429, 503}
EXPIRED = 504
UNREADABLE = {415, 422}
"""Statuses of a crop that is no image: unknown format, or known and broken."""


@dataclass(frozen=True, slots=True)
class WildRequest:
    """One request and what may be answered."""

    content_type: str
    body: bytes
    texts: list[str | None] = field(default_factory=list)
    """One for each crop; `None` for one that cannot be read."""
    single: bool = False
    """Answered with one object instead of a list."""
    refused_with: frozenset[int] = frozenset()
    """Statuses of a request that is wrong as a whole; the crops do not matter then."""
    timeout_ms: int | None = None
    """A deadline so short that it may pass."""

    def encoded(self) -> bytes:
        deadline = "" if self.timeout_ms is None else f"X-Request-Timeout-Ms: {self.timeout_ms}\r\n"
        head = f"POST /v1/recognize HTTP/1.1\r\nHost: localhost\r\nContent-Type: {self.content_type}\r\n{deadline}"
        return f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body

    def check(self, status: int, body: bytes) -> None:
        """Fail when this answer is none of the right ones."""
        if self.refused_with:
            assert status in self.refused_with, (status, body, self)
            return
        if status in SHED or (status == EXPIRED and self.timeout_ms is not None):
            return
        if self.single and self.texts == [None]:
            assert status in UNREADABLE, (status, body)
            return
        assert status == 200, (status, body)
        answer = json.loads(body)
        results = [answer] if self.single else answer["results"]
        assert len(results) == len(self.texts)
        for result, text in zip(results, self.texts, strict=True):
            self._check_crop(result, text)

    def _check_crop(self, result: dict[str, Any], text: str | None) -> None:
        if "error" not in result:
            assert result["text"] == text, (result, text)
            return
        allowed = (UNREADABLE if text is None else set()) | ({EXPIRED} if self.timeout_ms is not None else set())
        assert result["error"]["status"] in allowed, (result, text)


class WildRequests:
    """Makes requests at random, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        letters = [self._random.choices(CHARSET, k=self._random.randint(1, 12)) for _ in range(TEXTS)]
        self._crops = [("".join(text), png_of("".join(text))) for text in letters]

    def next(self) -> WildRequest:
        kinds: list[tuple[int, Callable[[int | None], WildRequest]]] = [
            (10, self._raw),
            (5, self._list),
            (4, self._form),
            (1, self._broken_json),
            (1, self._broken_form),
            (1, self._wrong_type),
        ]
        [make] = self._random.choices([make for _, make in kinds], [weight for weight, _ in kinds])
        return make(self._random.randint(1, 5) if self._random.random() < 0.1 else None)

    def _crop(self) -> tuple[str | None, bytes]:
        """A crop and its text; now and then one that is broken."""
        text, content = self._random.choice(self._crops)
        chance = self._random.random()
        if chance < 0.05:
            return None, content[: self._random.randint(1, len(content) // 2)]
        if chance < 0.08:
            return None, b"\0" + self._random.randbytes(50)
        return text, content

    def _some_crops(self) -> list[tuple[str | None, bytes]]:
        return [self._crop() for _ in range(self._random.randint(1, MAX_CROPS))]

    def _raw(self, timeout_ms: int | None) -> WildRequest:
        text, content = self._crop()
        return WildRequest("image/png", content, [text], single=True, timeout_ms=timeout_ms)

    def _list(self, timeout_ms: int | None) -> WildRequest:
        crops = self._some_crops()
        images = [{"content": base64.b64encode(content).decode()} for _, content in crops]
        body = json.dumps({"images": images}).encode()
        return WildRequest("application/json", body, [text for text, _ in crops], timeout_ms=timeout_ms)

    def _form(self, timeout_ms: int | None) -> WildRequest:
        crops = self._some_crops()
        parts = [
            b'--cut\r\nContent-Disposition: form-data; name="file"; filename="%d.png"\r\n\r\n%b\r\n' % (index, content)
            for index, (_, content) in enumerate(crops)
        ]
        texts = [text for text, _ in crops]
        content_type = "multipart/form-data; boundary=cut"
        return WildRequest(content_type, b"".join(parts) + b"--cut--\r\n", texts, len(crops) == 1, timeout_ms=timeout_ms)

    def _broken_json(self, timeout_ms: int | None) -> WildRequest:
        whole = self._list(timeout_ms)
        cut = whole.body[: self._random.randint(1, len(whole.body) - 1)]
        return WildRequest("application/json", cut, refused_with=frozenset({400, 422}))

    def _broken_form(self, timeout_ms: int | None) -> WildRequest:
        whole = self._form(timeout_ms)
        cut = whole.body[: self._random.randint(1, 40)]  # within the first part's head
        return WildRequest(whole.content_type, cut, refused_with=frozenset({400, 422}))

    def _wrong_type(self, timeout_ms: int | None) -> WildRequest:
        return WildRequest("text/plain", self._random.randbytes(100), refused_with=frozenset({415}))
