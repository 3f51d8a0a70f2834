"""Reading crops with a running service, over HTTP."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx

from artifact.orientation import Orientation
from artifact.text import Reading
from artifact.views import Found, Word
from model.data.pictures import encode_png
from reading.readers.interface import Picture, ReaderError
from reading.readers.options import Split

CROPS_PER_REQUEST: Final = 32
CONNECTIONS: Final = 2
TIMEOUT_S: Final = 120
PATIENCE_S: Final = 120
"""How many seconds a busy service is asked again and again."""
BUSY: Final = frozenset({429, 503})
SERVER_ERROR: Final = 500


class ServiceReader:
    """Reads by posting crops: the stored file where decoding it gives the right picture, else a PNG file of the picture."""

    def __init__(
        self,
        url: str,
        *,
        alternatives: int = 0,
        allowed: str | None = None,
        orientation: Orientation = "upright",
        split: Split = "none",
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Ask the service what it serves.

        Args:
            url: Address of the service.
            alternatives: How many texts each crop gets; 0: the one that was read.
            allowed: Which characters may be read, as `artifact.allowed` has it; `None`: all.
            orientation: Which turned views it is asked to read.
            split: Whether it is asked to read long crops in parts, too.
            transport: Used instead of the network, by tests.
            sleep: Waits for a number of seconds while the service is busy.

        Raises:
            ReaderError: There is no such service, or it does not answer as one.
        """
        try:
            address = httpx.URL(url.rstrip("/"))
        except httpx.InvalidURL:
            address = httpx.URL()
        if address.scheme not in ("http", "https") or not address.host:
            raise ReaderError(f"{url!r} is no address of a service: http://HOST:PORT or https://HOST:PORT is one")
        self._client = httpx.Client(base_url=address, timeout=TIMEOUT_S, transport=transport)
        self._sleep = sleep
        chosen: dict[str, str | int | None] = {
            "alternatives": alternatives or None,
            "charset": allowed,
            # Only what differs from what a service does unasked: older ones know no such parameters.
            "orientation": None if orientation == "upright" else orientation,
            "split": None if split == "none" else split,
        }
        self._query = {name: value for name, value in chosen.items() if value is not None}
        try:
            model = self._model()
            self.charset = self._charset(model)
        except ReaderError:
            self.close()
            raise
        self.description = f"{model['name']} at {url}"
        self.max_label_length: int = model["max_label_length"]
        limits = model["limits"]
        self._crops = min(CROPS_PER_REQUEST, limits["max_crops_per_request"])
        # Base64 and JSON around it make a body a third larger than what is in it.
        self._bytes = limits["max_body_bytes"] // 2
        self.refused = 0

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _model(self) -> dict[str, Any]:
        answer = self._send("GET", "/v1/models")
        try:
            [model] = answer.json()["models"]
            return dict(model)
        except (ValueError, KeyError, TypeError):
            raise ReaderError(f"{self._client.base_url} is not a parseq-service of this version") from None

    def _charset(self, model: dict[str, Any]) -> str:
        """The charset of a model; the service gives a long one at an address of its own."""
        try:
            if "charset" in model:
                return str(model["charset"])
            return str(self._send("GET", f"/v1/{model['charset_url']}").json()["charset"])
        except (ValueError, KeyError, TypeError):
            raise ReaderError(f"{self._client.base_url} is not a parseq-service of this version") from None

    def read(self, pictures: Sequence[Picture]) -> list[Reading]:
        """A reading for each picture, in several requests at once."""
        files = [picture.file or encode_png(picture.image) for picture in pictures]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return [reading for readings in pool.map(self._recognize, self._requests(files)) for reading in readings]

    def _requests(self, files: Sequence[bytes]) -> Iterator[list[bytes]]:
        request: list[bytes] = []
        size_bytes = 0
        for file in files:
            if request and (len(request) == self._crops or size_bytes + len(file) > self._bytes):
                yield request
                request, size_bytes = [], 0
            request.append(file)
            size_bytes += len(file)
        if request:
            yield request

    def _recognize(self, files: list[bytes]) -> list[Reading]:
        body = {"images": [{"content": base64.b64encode(file).decode("ascii")} for file in files]}
        results = self._send("POST", "/v1/recognize", body, self._query).json()["results"]
        if len(results) != len(files):
            raise ReaderError(f"the service gave {len(results)} results for {len(files)} crops")
        return [self._reading(result) for result in results]

    def _reading(self, result: dict[str, Any]) -> Reading:
        error = result.get("error")
        if error is None:
            others = tuple(Reading(other["text"], other["confidence"]) for other in result.get("alternatives", ()))
            if "angle" not in result and "words" not in result:
                return Reading(result["text"], result["confidence"], alternatives=others)
            words = tuple(Word(word["text"], word["confidence"], tuple(word["box"])) for word in result.get("words", ()))
            return Found(result["text"], result["confidence"], alternatives=others, angle=result.get("angle"), words=words)
        # A failure of the service says nothing about the model: no score is better than a wrong one.
        if error["status"] >= SERVER_ERROR:
            raise ReaderError(f"the service failed on a crop: {error['title']}. {error['detail']}")
        self.refused += 1
        return Reading("", 0.0)

    def _send(self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None) -> httpx.Response:
        """Send a request, again while the service is busy."""
        end_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = self._client.request(method, path, json=body, params=query or None)
            except httpx.TransportError as error:
                raise ReaderError(f"no answer from {self._client.base_url}: {error or type(error).__name__}") from None
            wait_s = _retry_after_s(answer)
            if answer.status_code not in BUSY or time.monotonic() + wait_s > end_s:
                break
            self._sleep(wait_s)
        if not answer.is_success:
            raise ReaderError(f"{self._client.base_url} answered {answer.status_code}: {_detail(answer)}")
        return answer


def _retry_after_s(answer: httpx.Response) -> float:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 1.0


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase
