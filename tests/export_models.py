"""Small networks with made-up weights, for tests of the export."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from artifact.metadata import INPUT_NAME
from export.gate.crops import GateCrop
from export.gate.parity import ParityReport, check_parity
from export.graphs.builder import GraphBuilder
from export.graphs.interface import Reference
from export.graphs.parseq.decoder import MAX_TABLE_BYTES
from export.graphs.parseq.graph import GRAPH, Decode, ParseqOptions
from export.to_onnx import ExportOptions
from model.charsets import CHARSETS
from model.recognisers.parseq.config import PARSeqConfig
from model.recognisers.parseq.network import PARSeq
from model.recognisers.vitstr.config import ViTSTRConfig
from model.recognisers.vitstr.network import ViTSTR

SIZES: dict[str, Any] = {
    "charset_train": CHARSETS["36"],
    "max_label_length": 10,
    "img_size": (16, 64),
    "patch_size": (8, 8),
    "embed_dim": 48,
    "enc_num_heads": 4,
    "enc_mlp_ratio": 2,
    "enc_depth": 2,
    "dec_num_heads": 6,
    "dec_mlp_ratio": 2,
}
RESIDUAL: dict[str, Any] = {"stem": "residual", "patch_size": (8, 4)}
VITSTR_SIZES: dict[str, Any] = {
    "charset_train": CHARSETS["36"],
    "max_label_length": 10,
    "img_size": (16, 64),
    "patch_size": (8, 8),
    "embed_dim": 48,
    "num_heads": 4,
    "depth": 3,
    "mlp_ratio": 2,
}


def small_model(*, eos_bias: float = 3.0, seed: int = 5, **sizes: Any) -> PARSeq:
    """A network in eval mode.

    Args:
        eos_bias: added to the end token's logit: with a high one texts end early, with a very low one never.
        seed: of the weights.
        sizes: of the config, instead of `SIZES`.
    """
    model = PARSeq(PARSeqConfig(**{**SIZES, **sizes}))
    make_up(model, seed)
    with torch.no_grad():
        model.head.bias[model.tokenizer.eos_id] += eos_bias
    return model.eval()


def small_vitstr(*, eos_bias: float = 3.0, seed: int = 5, **sizes: Any) -> ViTSTR:
    """A network in eval mode whose steps read each something else; arguments as those of `small_model`."""
    model = ViTSTR(ViTSTRConfig(**{**VITSTR_SIZES, **sizes}))
    random = make_up(model, seed)
    with torch.no_grad():
        for values in (model.pos_embed, model.cls_token):
            values.copy_(0.7 * torch.randn(values.shape, generator=random))
        model.head.bias[model.tokenizer.eos_id] += eos_bias
    return model.eval()


def make_up(model: nn.Module, seed: int) -> torch.Generator:
    """Give a network made-up weights; returns what draws them."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, values in model.state_dict().items():
            if values.dtype == torch.float32:
                values.copy_(_made_up(name, values, random))
    return random


def _made_up(name: str, like: Tensor, random: torch.Generator) -> Tensor:
    """Values of a size that keeps activations near 1 and logits far enough apart."""
    noise = torch.randn(like.shape, generator=random)
    if name.endswith("running_var"):
        return 0.5 + noise.abs()
    if name.endswith("pos_queries"):
        return noise
    if name.endswith(("bias", "running_mean")):
        return 0.1 * noise
    if like.dim() == 1:
        return 1 + 0.2 * noise
    gain = 3.0 if name == "head.weight" else 1.0
    return gain * noise / like[0].numel() ** 0.5


def write_graph(
    model: PARSeq,
    decode: Decode,
    refine_iters: int,
    *,
    early_exit: bool = False,
    with_logits: bool = False,
    max_table_bytes: int = MAX_TABLE_BYTES,
    builder: GraphBuilder | None = None,
) -> GraphBuilder:
    """The graph of a network, float32 unless the builder is another."""
    g = builder or GraphBuilder()
    GRAPH.write(g, model, ParseqOptions(decode, refine_iters, early_exit, max_table_bytes), with_logits=with_logits)
    return g


def export_options(decode: Decode, refine_iters: int, **rest: Any) -> ExportOptions:
    """How to export a network called `mine`; `early_exit` and fields of `ExportOptions` by name."""
    reading = {"decode": decode, "refine_iters": refine_iters}
    if "early_exit" in rest:
        reading["early_exit"] = rest.pop("early_exit")
    return ExportOptions(**{"model_name": "mine", "weights_sha256": "ab" * 32, "reading": reading, **rest})


def read_with_torch(model: PARSeq, pixels: NDArray[np.uint8], decode: Decode, refine_iters: int) -> Reference:
    """What the network itself reads."""
    return GRAPH.reference(GRAPH.network_that_reads_so(model, ParseqOptions(decode, refine_iters)), pixels)


def parity_of(
    artifact: bytes, model: PARSeq, crops: Sequence[GateCrop], decode: Decode, refine_iters: int, **options: Any
) -> ParityReport:
    """What the parity gate says of an artifact that reads in this way."""
    pixels = np.stack([crop.pixels for crop in crops])
    return check_parity(artifact, read_with_torch(model, pixels, decode, refine_iters), crops, **options)


def serialised(graph: GraphBuilder) -> bytes:
    """The bytes of a graph without metadata."""
    content: bytes = graph.model("test", {}, "0").SerializeToString()
    return content


def run(artifact: bytes, pixels: NDArray[np.uint8], batch_size: int) -> list[NDArray[Any]]:
    """All outputs for uint8 `(N, H, W, 3)`, read in batches."""
    return run_session(new_session(artifact), pixels, batch_size)


@functools.lru_cache(maxsize=32)
def new_session(artifact: bytes) -> onnxruntime.InferenceSession:
    """A session that is kept for a while, since to open one takes longer than all that most tests do with it."""
    return open_session(artifact)


def open_session(artifact: bytes) -> onnxruntime.InferenceSession:
    """A session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(artifact, options, providers=["CPUExecutionProvider"])


def run_session(session: onnxruntime.InferenceSession, pixels: NDArray[np.uint8], batch_size: int) -> list[NDArray[Any]]:
    """The same with a session that is there already."""
    starts = range(0, len(pixels), batch_size)
    parts = [session.run(None, {INPUT_NAME: pixels[start : start + batch_size]}) for start in starts]
    return [np.concatenate(output) for output in zip(*parts, strict=True)]
