"""What a network costs by its size alone: parameters, and floating-point operations of a reading."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.recognisers.parseq.network import PARSeq


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


def parameters(network: PARSeq) -> int:
    """Numbers that training sets."""
    return sum(values.numel() for values in network.parameters())


def costs(network: PARSeq) -> list[Cost]:
    """The encoder alone, and whole readings of the longest text in several ways.

    The network is PyTorch's, which computes keys and values anew at every step; an exported graph does less.
    """
    length = network.config.max_label_length
    # PyTorch's counter stumbles over parameters that want gradients.
    network = copy.deepcopy(network).requires_grad_(False)
    ways: dict[str, tuple[bool, int] | None] = {
        "encoder": None,
        "nar": (False, 0),
        "ar": (True, 0),
        "ar + 1 refinement": (True, 1),
    }
    config = network.config
    own = "ar" if config.decode_ar else "nar"
    own += "" if not config.refine_iters else f" + {config.refine_iters} refinement{'s' if config.refine_iters > 1 else ''}"
    ways.setdefault(own, (config.decode_ar, config.refine_iters))
    return [Cost(what, _flops(network, length, way) / 1e9) for what, way in ways.items()]


def _flops(network: PARSeq, length: int, way: tuple[bool, int] | None) -> int:
    image = torch.zeros(1, 3, *network.config.img_size, device=network.pos_queries.device)
    # Fused kernels of attention are counted on some devices only; its plain form is products of matrices on all of them.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        if way is None:
            network.encode(image)
        else:
            network(image, length, *way)
    return int(counter.get_total_flops())
