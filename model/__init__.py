"""Recognisers in pure PyTorch: networks, data and training, as offline jobs.

Knows nothing of ONNX or HTTP. `model.load("parseq-tiny", pretrained=True)` gives a network with weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.checkpoints.loading import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Late, so that rendering crops or reading a config does not import torch.
    if name == "load":
        from model.checkpoints.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
