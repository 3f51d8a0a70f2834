"""What a network costs by its size alone: parameters, and floating-point operations of a reading."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
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
    network = copy.deepcopy(network).requires_grad_(False)
    image = torch.zeros(1, 3, *network.config.img_size, device=next(network.parameters()).device)
    return [Cost(what, _flops(way, image) / 1e9) for what, way in network.ways().items()]


def _flops(way: Callable[[Tensor], Tensor], image: Tensor) -> int:
    # Fused kernels of attention and of recurrent layers are counted on some devices only, or on none; their plain forms are
    # products of matrices on all of them.
    plain = sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False), torch.backends.cudnn.flags(enabled=False)
    with ExitStack() as stack:
        for context in (torch.no_grad(), *plain):
            stack.enter_context(context)
        counter = stack.enter_context(FlopCounterMode(display=False))
        way(image)
    return int(counter.get_total_flops())
