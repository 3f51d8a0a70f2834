"""What a network costs by its size alone: parameters, and the floating-point operations and activations of a run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from model.recognisers.interface import Network

NOWHERE: Final = "meta"
"""PyTorch's device of tensors without values. It has no fused recurrent layers, which the counter would miss."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of reading one crop in one of the network's ways."""

    what: str
    gflops: float
    """Billions of floating-point operations in products of matrices, convolutions and attention; two for a multiply-add."""
    mactivations: float
    """Millions of numbers that those operations write to memory, which often says more about the time they take."""

    @property
    def gmacs(self) -> float:
        """Billions of multiply-adds, which fvcore, and with it the reference implementation, calls FLOPs."""
        return self.gflops / 2


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """The size of a network, and the costs of reading with it."""

    name: str
    """Its name in the report; latencies have the same."""
    parameters: int
    max_label_length: int
    costs: Sequence[Cost]


class _Activations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the output numbers of all operations that PyTorch's FLOP counter counts."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count its result."""
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.count += result.numel()
        return result


def parameters(network: Network) -> int:
    """Number of trainable parameters."""
    return sum(values.numel() for values in network.parameters())


def size_of(network: Network, name: str, *, all_ways: bool) -> NetworkSize:
    """Parameters and costs of a network, in all its ways of reading or only in that of its config."""
    return NetworkSize(name, parameters(network), network.config.max_label_length, costs(network, all_ways=all_ways))


def costs(network: Network, *, all_ways: bool = True) -> list[Cost]:
    """The costs of reading the longest text, in each of the network's ways or only in that of its config.

    They are those of the PyTorch network, which may compute at every step what an exported graph computes once.
    """
    # Shapes are enough for counting. PyTorch's counter fails on parameters that need gradients.
    network = copy.deepcopy(network).requires_grad_(False).to(NOWHERE)
    image = torch.zeros(1, 3, *network.config.img_size, device=NOWHERE)
    ways = network.ways() if all_ways else {"reading": lambda images: network(images, network.config.max_label_length)}
    return [_cost(what, way, image) for what, way in ways.items()]


def _cost(what: str, way: Callable[[Tensor], Tensor], image: Tensor) -> Cost:
    # Fused attention kernels are not always counted; plain attention is matrix products, which are.
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        _Activations() as activations,
        FlopCounterMode(display=False) as counter,
    ):
        way(image)
    return Cost(what, counter.get_total_flops() / 1e9, activations.count / 1e6)
