"""Triton's own client, as those who use the Open Inference Protocol have it, against the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.fakes import toy_runtime
from tests.integration.in_process import listening
from tests.open_inference import base64_of
from tests.toy_artifact import METADATA, confidence_of, png_of

MODEL = "toy"
TEXTS = ["abc", "x1"]
FILES = [png_of(text) for text in TEXTS]


@pytest.fixture(scope="module")
def client() -> Iterator[triton.InferenceServerClient]:
    with listening(toy_runtime()) as (host, port), triton.InferenceServerClient(f"{host}:{port}", concurrency=4) as client:
        yield client


def tensor(files: list[bytes], column: bool, binary: bool) -> triton.InferInput:
    elements: Any = files if binary else [text.encode() for text in base64_of(*files)]
    array = np.array(elements, dtype=np.object_).reshape([len(files), 1] if column else [len(files)])
    found = triton.InferInput("images", list(array.shape), "BYTES")
    found.set_data_from_numpy(array, binary_data=binary)
    return found


def check(result: triton.InferResult, column: bool = False) -> None:
    texts, confidences = result.as_numpy("text"), result.as_numpy("confidence")
    assert texts.shape == confidences.shape == ((2, 1) if column else (2,))
    assert [text.decode() if isinstance(text, bytes) else text for text in texts.reshape(-1)] == TEXTS
    assert confidences.reshape(-1).tolist() == [pytest.approx(confidence_of(text), abs=1e-6) for text in TEXTS]
    document = result.get_response()
    assert (document["id"], document["model_name"], document["model_version"]) == ("r-1", MODEL, METADATA.weights_sha256[:12])


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [None, False, True])
def test_crops_are_read(client: triton.InferenceServerClient, column: bool, binary_in: bool, binary_out: bool | None) -> None:
    outputs = None
    if binary_out is not None:
        outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("text", "confidence")]
    check(client.infer(MODEL, [tensor(FILES, column, binary_in)], outputs=outputs, request_id="r-1"), column)


@pytest.mark.parametrize("way", ["gzip", "deflate"])
def test_bodies_may_be_packed(client: triton.InferenceServerClient, way: str) -> None:
    images = [tensor(FILES, False, True)]
    check(client.infer(MODEL, images, request_id="r-1", request_compression_algorithm=way))
    check(client.infer(MODEL, images, request_id="r-1", response_compression_algorithm=way))


def test_options_are_taken(client: triton.InferenceServerClient) -> None:
    options = {"priority": 1, "timeout": 5_000_000, "parameters": {"mine": True}}
    check(client.infer(MODEL, [tensor(FILES, False, True)], METADATA.weights_sha256[:12], request_id="r-1", **options))


def test_several_are_asked_at_once(client: triton.InferenceServerClient) -> None:
    waiting = [client.async_infer(MODEL, [tensor(FILES, False, True)], request_id="r-1") for _ in range(12)]
    for request in waiting:
        check(request.get_result())


def test_what_there_is_is_described(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert not client.is_model_ready("nosuch")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert client.get_model_metadata(MODEL)["inputs"][0]["name"] == "images"
    assert [model["name"] for model in client.get_model_repository_index()] == [MODEL]


def test_what_is_wrong_is_told(client: triton.InferenceServerClient) -> None:
    wrong = triton.InferInput("nosuch", [1], "BYTES")
    wrong.set_data_from_numpy(np.array([b"x"], dtype=np.object_))
    for status, told, ask in (
        ("404", "those there are: toy", lambda: client.infer("nosuch", [tensor(FILES, False, True)])),
        ("404", "those there are: toy", lambda: client.get_model_metadata("nosuch")),
        ("422", "there is no input `nosuch`", lambda: client.infer(MODEL, [wrong])),
        ("422", "images[1]: The image is damaged", lambda: client.infer(MODEL, [tensor([FILES[0], b"junk"], False, True)])),
        ("400", "SIGHUP", lambda: client.load_model(MODEL)),
    ):
        with pytest.raises(InferenceServerException) as caught:
            ask()
        assert caught.value.status() == status
        assert told in caught.value.message()
