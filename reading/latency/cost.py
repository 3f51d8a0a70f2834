"""What a network costs by its size alone: parameters, and floating-point operations of a reading."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.recognisers.interface import Network


@dataclass(frozen=True, slots=True)
class Cost:
    """Of reading one crop."""

    what: str
    gflops: float
    """Billions of floating-point operations in products of matrices, convolutions and attention; two for a multiply-add."""

    @property
    def gmacs(self) -> float:
        """Billions of multiply-adds, which fvcore, and with it the reference implementation, calls FLOPs."""
        return self.gflops / 2


def parameters(network: Network) -> int:
    """Numbers that training sets."""
    return sum(values.numel() for values in network.parameters())


def costs(network: Network) -> list[Cost]:
    """Those of reading the longest text, in each of the network's ways.

    The network is PyTorch's, which may compute again at every step what an exported graph computes once.
    """
    # PyTorch's counter stumbles over parameters that want gradients.
    network = copy.deepcopy(network).cpu().requires_grad_(False)
    image = torch.zeros(1, 3, *network.config.img_size)
    return [Cost(what, _flops(way, image) / 1e9) for what, way in network.ways().items()]


def _flops(way: Callable[[Tensor], Tensor], image: Tensor) -> int:
    # The fused kernels of attention are not counted on a CPU; its plain form is products of matrices.
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mkldnn_rnn_layer: _recurrent_flops})
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        way(image)
    return int(counter.get_total_flops())


def _recurrent_flops(columns: Sequence[int], of_input: Sequence[int], of_state: Sequence[int], *_: object, **__: object) -> int:
    """Of one direction of a recurrent layer, which PyTorch's counter does not know, by the shapes of its input and weights."""
    return 2 * math.prod(columns[:-1]) * (math.prod(of_input) + math.prod(of_state))
