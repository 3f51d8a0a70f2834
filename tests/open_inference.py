"""Requests and answers of the Open Inference Protocol, put together and taken apart byte by byte."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence
from typing import Any

import httpx

LENGTH_HEADER = "inference-header-content-length"
INFER = "/v2/models/toy/infer"


def base64_of(*files: bytes) -> list[str]:
    return [base64.b64encode(file).decode() for file in files]


def tensor(data: Any = None, shape: list[Any] | None = None, **members: Any) -> dict[str, Any]:
    """The input; without a shape that of its data."""
    found = {"name": "images", "datatype": "BYTES", "shape": [len(data or [])] if shape is None else shape}
    return {**found, **({} if data is None else {"data": data}), **members}


def as_json(*files: bytes, **members: Any) -> dict[str, Any]:
    """A request with images in base64."""
    return {"inputs": [tensor(base64_of(*files))], **members}


def packed(*files: bytes) -> bytes:
    """A binary tensor of BYTES."""
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


def binary(blob: bytes, shape: list[int], datatype: str = "BYTES", **members: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request with one binary tensor."""
    described = tensor(shape=shape, datatype=datatype, parameters={"binary_data_size": len(blob)})
    head = json.dumps({"inputs": [described], **members}).encode()
    return head + blob, {LENGTH_HEADER: str(len(head))}


def files(*contents: bytes, **members: Any) -> tuple[bytes, dict[str, str]]:
    """The same, of files."""
    return binary(packed(*contents), [len(contents)], **members)


def outputs_of(answer: httpx.Response) -> dict[str, Any]:
    """The elements of each output, JSON or binary, with its shape under `NAME.shape`."""
    assert answer.status_code == 200, answer.text
    content = answer.content
    length = int(answer.headers.get(LENGTH_HEADER, len(content)))
    rest, found = content[length:], {}
    for output in json.loads(content[:length])["outputs"]:
        found[f"{output['name']}.shape"] = output["shape"]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[output["name"]] = output["data"]
            continue
        found[output["name"]] = _unpacked(rest[:size], output["datatype"])
        rest = rest[size:]
    assert rest == b""
    return found


def _unpacked(blob: bytes, datatype: str) -> Sequence[Any]:
    if datatype == "FP32":
        return list(struct.unpack(f"<{len(blob) // 4}f", blob))
    assert datatype == "BYTES"
    found = []
    while blob:
        length = int.from_bytes(blob[:4], "little")
        found.append(blob[4 : 4 + length].decode())
        blob = blob[4 + length :]
    return found
