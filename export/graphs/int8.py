"""Graphs of 8-bit integers: weights (to 7 bits) and what they multiply are rounded, with scales fixed at export.

The graph is the same, written by another builder: every rounded value goes through a pair `QuantizeLinear`,
`DequantizeLinear`, the standard form in ONNX; ONNX Runtime turns a pair, a weight and the product between them into
one integer kernel. Weights have a scale per output channel, values one scale each.

The scales of values are fixed at export, from calibration crops. Scales taken from each batch ("dynamic") would make a crop's
reading depend on the other crops in its batch.

Kept in float32: layer norms, attention scores and softmax, the residual stream, the patch embedding, the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from export.graphs.builder import GraphBuilder

Range = tuple[float, float]
"""Smallest and largest value observed."""
LEVELS: Final = 255
WEIGHT_LEVELS: Final = 63
"""Weights are rounded to -63..63, zero to zero: 7 bits, so that no processor's sums overflow.

The kernels for x86 processors without VNNI add two products in 16 bits, where `255 * 127 * 2` overflows and `255 * 63 * 2` does
not (ADR 0010).
"""
MIN_SCALE: Final = 1e-8


class CalibrationBuilder(GraphBuilder):
    """Writes the float32 graph and notes which of its values an int8 graph would round."""

    def __init__(self) -> None:
        """Start an empty graph."""
        super().__init__()
        self.observed: dict[str, list[str]] = {}
        """Names of the values by key."""

    def activation(self, value: str, key: str) -> str:
        """Note the value."""
        if self.exact:
            return value
        values = self.observed.setdefault(key, [])
        if value not in values:
            values.append(value)
        return value


class Int8Builder(GraphBuilder):
    """Writes a graph whose products with weights are done in integers."""

    flat_rows = False
    """False, since ONNX Runtime fuses a product and a sum of two axes to one `Gemm` of floats before it looks for integers."""

    def __init__(self, ranges: Mapping[str, Range]) -> None:
        """Start an empty graph.

        Args:
            ranges: By key, the range of the values that `CalibrationBuilder` has noted.
        """
        super().__init__()
        self._ranges = ranges
        self._rounded: dict[tuple[str, str], str] = {}
        self._scale_of: dict[str, float] = {}

    def activation(self, value: str, key: str) -> str:
        """The value, rounded to 256 levels; as it is inside `full_precision`."""
        if self.exact:
            return value
        if (value, key) not in self._rounded:
            scale, zero = scale_and_zero(self._ranges[key])
            parameters = [self._number(np.float32(scale), "scale"), self._number(np.uint8(zero), "zero")]
            integers = self.node("QuantizeLinear", [value, *parameters])
            rounded = self.node("DequantizeLinear", [integers, *parameters])
            self._rounded[value, key] = rounded
            self._scale_of[rounded] = scale
        return self._rounded[value, key]

    def weight(self, weight: Tensor, name: str) -> str:
        """The transpose of a weight, rounded; in full precision inside `full_precision`."""
        if self.exact:
            return super().weight(weight, name)
        if name not in self._weights:
            integers, scales = round_weight(weight)
            self._weights[name] = self._dequantize(integers.T, scales, name, axis=1)
        return self._weights[name]

    def convolution(
        self, value: str, weight: Tensor, bias: Tensor, name: str, *, strides: Sequence[int], pads: Sequence[int]
    ) -> str:
        """A convolution of a rounded value; its bias is rounded to 32 bits at the scale of the sums.

        In full precision inside `full_precision`.
        """
        if self.exact:
            return super().convolution(value, weight, bias, name, strides=strides, pads=pads)
        integers, scales = round_weight(weight)
        bias_scales = (scales.astype(np.float64) * self._scale_of[value]).astype(np.float32)
        bias_integers = np.round(bias.detach().double().numpy() / bias_scales).astype(np.int32)
        inputs = [
            value,
            self._dequantize(integers, scales, name, axis=0),
            self._dequantize(bias_integers, bias_scales, f"{name}.bias", axis=0),
        ]
        return self.node("Conv", inputs, kernel_shape=list(weight.shape[2:]), strides=list(strides), pads=list(pads))

    def _caches(self) -> list[dict[Any, Any]]:
        return [*super()._caches(), self._rounded, self._scale_of]

    def _dequantize(self, integers: NDArray[np.signedinteger], scales: NDArray[np.float32], name: str, axis: int) -> str:
        zeros = np.zeros(len(scales), integers.dtype)
        inputs = [self.constant(integers, name), self.constant(scales, f"{name}.scale"), self.constant(zeros, "zeros")]
        return self.node("DequantizeLinear", inputs, axis=axis)

    def _number(self, value: np.generic, name: str) -> str:
        return self.constant(np.asarray(value), name)


def scale_and_zero(seen: Range) -> tuple[float, int]:
    """Step and zero point that spread 0..255 over a range; 0 itself is always met exactly."""
    low, high = min(seen[0], 0.0), max(seen[1], 0.0)
    scale = max(float(np.float32((high - low) / LEVELS)), MIN_SCALE)
    return scale, int(np.clip(round(-low / scale), 0, LEVELS))


def round_weight(weight: Tensor) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """The weight, `(out, ...)`, as integers of the same shape, and a scale for each output."""
    values = weight.detach().double().numpy()
    largest = np.abs(values).reshape(len(values), -1).max(1)
    scales = np.maximum(largest / WEIGHT_LEVELS, MIN_SCALE).astype(np.float32)
    return np.round(values / scales.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8), scales
