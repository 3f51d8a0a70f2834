"""What is served and what is posted: artifacts with made-up weights, an artifact that computes nothing, and crops."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from artifact.files import write_whole
from artifact.metadata import CONFIDENCES_NAME, INPUT_NAME, TOKEN_IDS_NAME, ArtifactMetadata
from benchmarks.serving.client import post

SAMPLES = Path(__file__).parents[2] / "docs" / "samples"
CROP_SIZE = (120, 40)
JPEG_QUALITY = 90
NULL_TEXT_LENGTH = 8


def made_up_artifact(model_name: str, folder: Path) -> Path:
    """An artifact of a named architecture, NAR in float32, with the weights it would begin training with; kept in `folder`."""
    path = folder / f"{model_name}-nar-made-up.onnx"
    if not path.exists():
        # Here, because PyTorch is needed for nothing else.
        import torch

        from export.to_onnx import ExportOptions, build_artifact, weights_digest
        from model.recognisers.parseq.config import NAMED
        from model.recognisers.parseq.network import PARSeq

        torch.manual_seed(0)
        model = PARSeq(NAMED[model_name]).eval()
        options = ExportOptions(model_name, weights_digest(model), {"decode": "nar", "refine_iters": 0})
        write_whole(path, build_artifact(model, options).SerializeToString())
    return path


def null_artifact(like: ArtifactMetadata, folder: Path) -> Path:
    """An artifact with the inputs, outputs and metadata of another that computes nothing: every crop reads the same."""
    steps = like.max_label_length + 1
    ids = np.zeros((1, steps), np.int64)
    ids[0, :NULL_TEXT_LENGTH] = np.arange(NULL_TEXT_LENGTH) % len(like.charset) + 1
    constants: dict[str, NDArray[Any]] = {"ids": ids, "ones": np.ones((1, steps), np.float32), "steps": np.array([1], np.int64)}
    nodes = [
        helper.make_node("Shape", [INPUT_NAME], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "steps"], ["shape"], axis=0),
        helper.make_node("Expand", ["ids", "shape"], [TOKEN_IDS_NAME]),
        helper.make_node("Expand", ["ones", "shape"], [CONFIDENCES_NAME]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "null",
        [info(INPUT_NAME, TensorProto.UINT8, ["batch", like.image_height, like.image_width, 3])],
        [
            info(TOKEN_IDS_NAME, TensorProto.INT64, ["batch", steps]),
            info(CONFIDENCES_NAME, TensorProto.FLOAT, ["batch", steps]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", like.opset)], ir_version=9)
    metadata = replace(like, model_name="null", precision="fp32", has_logits=False, top_count=0, has_allowed=False)
    helper.set_model_props(model, metadata.to_map())
    path = folder / "null.onnx"
    onnx.save(model, path)
    return path


def crop_files() -> list[tuple[bytes, str]]:
    """The sample crops at the size crops usually have, as JPEG and as PNG: content and media type."""
    files = []
    for path in sorted(SAMPLES.glob("*.png")):
        crop = Image.open(path).convert("RGB").resize(CROP_SIZE, Image.Resampling.BICUBIC)
        for format_, options in (("JPEG", {"quality": JPEG_QUALITY}), ("PNG", {})):
            buffer = io.BytesIO()
            crop.save(buffer, format_, **options)
            files.append((buffer.getvalue(), f"image/{format_.lower()}"))
    return files


def single_requests(path: str = "/v1/recognize") -> list[bytes]:
    """Requests of one crop, as raw bodies."""
    return [post(content, media_type, path) for content, media_type in crop_files()]


def batch_request(n_crops: int) -> bytes:
    """A request of many crops, as JSON."""
    files: Sequence[tuple[bytes, str]] = crop_files()
    images = [{"content": base64.b64encode(files[index % len(files)][0]).decode()} for index in range(n_crops)]
    return post(json.dumps({"images": images}).encode(), "application/json")
