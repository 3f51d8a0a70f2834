"""Requests of every kind at random, each with the answers that would be right."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.toy_artifact import CHARSET, png_of

MAX_CROPS = 8
TEXTS = 200
"""Different crops; as many as make a mix-up show."""
SHED = {429, 503}
EXPIRED = 504
FORM = "multipart/form-data; boundary=cut"
Expected = str | frozenset[int]
"""Of a crop: its text, or the statuses of the error it must end in."""
UNREADABLE: Expected = frozenset({415, 422})
"""A crop that is no image: unknown format, or known and broken."""
FAILS: Expected = frozenset({500})
"""A crop on which the model fails."""


@dataclass(frozen=True, slots=True)
class WildRequest:
    """One request and what may be answered."""

    content_type: str
    body: bytes
    expected: list[Expected] = field(default_factory=list)
    """One for each crop."""
    single: bool = False
    """Answered with one object instead of a list."""
    refused_with: frozenset[int] = frozenset()
    """Statuses of a request that is wrong as a whole; the crops do not matter then."""
    timeout_ms: int | None = None
    """A deadline so short that it may pass."""

    def encoded(self, request_id: str = "") -> bytes:
        lines = ["POST /v1/recognize HTTP/1.1", "Host: localhost", f"Content-Type: {self.content_type}"]
        lines += [f"X-Request-Timeout-Ms: {self.timeout_ms}"] if self.timeout_ms is not None else []
        lines += [f"X-Request-Id: {request_id}"] if request_id else []
        lines += [f"Content-Length: {len(self.body)}", "", ""]
        return "\r\n".join(lines).encode() + self.body

    def check(self, status: int, body: bytes) -> None:
        """Fail when this answer is none of the right ones."""
        if status in SHED or (status == EXPIRED and self.timeout_ms is not None):
            return
        if self.refused_with:
            assert status in self.refused_with, (status, body, self)
            return
        if self.single and isinstance(self.expected[0], frozenset):
            assert status in self.expected[0], (status, body)
            return
        assert status == 200, (status, body)
        answer = json.loads(body)
        results = [answer] if self.single else answer["results"]
        assert len(results) == len(self.expected)
        for result, expected in zip(results, self.expected, strict=True):
            self._check_crop(result, expected)

    def _check_crop(self, result: dict[str, Any], expected: Expected) -> None:
        if "error" not in result:
            assert result["text"] == expected, (result, expected)
            return
        allowed = (expected if isinstance(expected, frozenset) else set()) | (
            {EXPIRED} if self.timeout_ms is not None else set()
        )
        assert result["error"]["status"] in allowed, (result, expected)


def toy_crops(choice: random.Random) -> list[tuple[Expected, bytes]]:
    """Crops of different texts for the toy artifact."""
    letters = [choice.choices(CHARSET, k=choice.randint(1, 12)) for _ in range(TEXTS)]
    return [("".join(text), png_of("".join(text))) for text in letters]


class WildRequests:
    """Makes requests at random, the same ones for the same seed.

    Args:
        seed: Of the random numbers.
        crops: What is on each crop, and its file; default: many toy crops that can be read.
    """

    def __init__(self, seed: int, crops: Sequence[tuple[Expected, bytes]] = ()) -> None:
        self._random = random.Random(seed)
        self._crops = crops or toy_crops(self._random)

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
        return make(self._random.randint(100, 110) if self._random.random() < 0.1 else None)

    def _crop(self) -> tuple[Expected, bytes]:
        """What is on a crop, and its file; now and then one that is broken."""
        expected, content = self._random.choice(self._crops)
        chance = self._random.random()
        if chance < 0.05:
            return UNREADABLE, content[: self._random.randint(1, len(content) // 2)]
        if chance < 0.08:
            return UNREADABLE, b"\0" + self._random.randbytes(50)
        return expected, content

    def _some_crops(self) -> list[tuple[Expected, bytes]]:
        return [self._crop() for _ in range(self._random.randint(1, MAX_CROPS))]

    def _raw(self, timeout_ms: int | None) -> WildRequest:
        expected, content = self._crop()
        return WildRequest("image/png", content, [expected], single=True, timeout_ms=timeout_ms)

    def _list(self, timeout_ms: int | None) -> WildRequest:
        crops = self._some_crops()
        images = [{"content": base64.b64encode(content).decode()} for _, content in crops]
        body = json.dumps({"images": images}).encode()
        return WildRequest("application/json", body, [expected for expected, _ in crops], timeout_ms=timeout_ms)

    def _form(self, timeout_ms: int | None) -> WildRequest:
        crops = self._some_crops()
        parts = [
            b'--cut\r\nContent-Disposition: form-data; name="file"; filename="%d.png"\r\n\r\n%b\r\n' % (index, content)
            for index, (_, content) in enumerate(crops)
        ]
        body, expected = b"".join(parts) + b"--cut--\r\n", [expected for expected, _ in crops]
        return WildRequest(FORM, body, expected, single=len(crops) == 1, timeout_ms=timeout_ms)

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
