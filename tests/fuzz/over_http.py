"""Broken files through a real server, as bodies, form files and JSON: no answer may be the server's fault."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable

import httpx

from tests.fuzz.memory import Memory
from tests.integration.server import PATIENCE_S, ROOT, ServerProcess

PATH = "/v1/recognize"
SOUND, SOUND_TEXT = (ROOT / "docs" / "samples" / "harbour.png").read_bytes(), "HARBOUR"
CHECK_EVERY = 50
MAX_FORM_BYTES = 2**21
"""Of a file beside others; larger ones are sent alone, or the request as a whole would be too large."""


def post_all(server: ServerProcess, numbers: Iterable[int], file: Callable[[int], bytes]) -> tuple[Counter[str], Memory]:
    """Post the files of these numbers beside a sound crop where the form allows; what was answered, and the memory."""
    answers: Counter[str] = Counter()
    memory = Memory(server.process.pid)
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        for number in numbers:
            answers[_post(client, number, file(number))] += 1
            if number % CHECK_EVERY == 0:
                memory.look(number)
    return answers, memory


def _post(client: httpx.Client, number: int, data: bytes) -> str:
    if number % 3 == 0 or len(data) > MAX_FORM_BYTES:
        response = client.post(PATH, content=data, headers={"content-type": "application/octet-stream"})
        assert response.status_code == 200 or 400 <= response.status_code < 500, (number, response.text)
        return response.json().get("type", "read").rpartition(":")[2]
    if number % 3 == 1:
        response = client.post(PATH, files=[("a", ("a.png", SOUND)), ("b", ("b.png", data)), ("c", ("c.png", SOUND))])
    else:
        images = [{"content": base64.b64encode(content).decode()} for content in (SOUND, data, SOUND)]
        response = client.post(PATH, json={"images": images})
    assert response.status_code == 200, (number, response.text)
    before, broken, after = response.json()["results"]
    assert before["text"] == after["text"] == SOUND_TEXT, number
    error = broken.get("error", {"status": 400, "type": "read"})
    assert 400 <= error["status"] < 500, (number, error)
    return str(error["type"]).rpartition(":")[2]
