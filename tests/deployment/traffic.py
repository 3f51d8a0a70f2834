"""One of each kind of answer, so that every series exists."""

from __future__ import annotations

import base64

import httpx

from tests.toy_artifact import png_of

PATH = "/v1/recognize"
PNG = {"content-type": "image/png"}
AT_ONCE = {"x-request-timeout-ms": "0.001"}
"""A deadline that has passed before anything can be read."""


def of_each_kind(url: str) -> None:
    """Post to a service with the toy artifact: read, several read, unreadable, poisoned, expired."""
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.post(PATH, content=png_of("word"), headers=PNG).status_code == 200
        images = [{"content": base64.b64encode(png_of(text)).decode()} for text in ("a", "b", "c")]
        assert client.post(PATH, json={"images": images}).status_code == 200
        assert client.post(PATH, content=b"no image", headers=PNG).status_code == 422
        assert client.post(PATH, content=png_of("word", poisoned=True), headers=PNG).status_code == 500
        assert client.post(PATH, content=png_of("word"), headers=PNG | AT_ONCE).status_code == 504
