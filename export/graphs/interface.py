"""What a recogniser must provide to be exported, and which recognisers can be.

A recogniser is a module or package beside this one, of the recogniser's name, with a `Graph` called `GRAPH`.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor

from artifact.allowed import Allowed
from artifact.metadata import (
    ALLOWED_NAME,
    CONFIDENCES_NAME,
    EOS_ID,
    INPUT_NAME,
    LOGITS_NAME,
    TOKEN_IDS_NAME,
    TOP_CONFIDENCES_NAME,
    TOP_IDS_NAME,
    Precision,
)
from export.graphs.builder import GraphBuilder
from model.recognisers.interface import Network
from model.recognisers.parts.normalise import normalise
from model.recognisers.restriction import FORBIDDEN

BATCH: Final = "batch"
"""Name of the only dynamic axis."""
REFERENCE_BATCH: Final = 8

Options = TypeVar("Options")
"""The options of a recogniser's export: a frozen data class of its own."""
Ids = NDArray[np.int64]
Floats = NDArray[np.float32]


class ExportError(ValueError):
    """An export cannot be done as asked; the message names the cause and the cure."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The values of a graph that hold what was read, by their names. B batch, S steps, C classes."""

    token_ids: str
    """int64 `(B, S)`."""
    logits: str | None
    """float32 `(B, S, C)`, from which the tokens were chosen; None if logits belong to other steps, such as columns."""
    confidences: str | None = None
    """float32 `(B, S)`; None: computed from the logits, as the largest probability of each step."""
    probabilities: str | None = None
    """float32 `(B, S, C)`, of which the confidences are the largest; None: the softmax of the logits."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What PyTorch reads, in the form that the artifact gives. N crops, S steps, C classes."""

    token_ids: Ids
    """`(N, S)`."""
    confidences: Floats
    """`(N, S)`."""
    logits: Floats
    """`(N, S, C)`, of the answer; of columns instead of steps if the artifact gives no logits."""
    steps: Ids
    """`(N,)`: how many steps carry meaning, the end token's included."""
    margins: Floats
    """`(N,)`: smallest gap between the two best logits in any decision that the text depends on."""
    probabilities: Floats | None = None
    """`(N, S, C)`, of the classes that can be read; None: the softmax of the logits."""


@dataclass(frozen=True, slots=True)
class NoOptions:
    """The options of a recogniser that has none."""


class Graph(ABC, Generic[Options]):
    """How one recogniser is written as ONNX nodes; the defaults suit one that reads in a single pass."""

    OPTIONS: ClassVar[type[Any]] = NoOptions
    """The data class of its options."""
    RESTRICTS: ClassVar[bool] = False
    """Whether `read` takes `penalty`, and `reference` takes `allowed`."""

    def add_arguments(self, parser: argparse._ActionsContainer) -> None:
        """Add command-line options. Those given come to `options`, by the names that they are parsed to."""
        return

    def options(self, network: Network, chosen: Mapping[str, Any], precision: Precision) -> Options:
        """The options: those chosen, and for the rest the network's own way of reading.

        Raises:
            ExportError: The choices contradict each other, or one is not an option of this recogniser.
        """
        for name in sorted(chosen.keys() - {field.name for field in fields(self.OPTIONS)}):
            raise ExportError(f"--{name.replace('_', '-')} is no option of {network.config.RECOGNISER!r}: leave it out")
        return self.complete(network, chosen, precision)

    def complete(self, network: Any, chosen: Mapping[str, Any], precision: Precision) -> Options:
        """The same; all names of `chosen` are fields of `OPTIONS`."""
        options: Options = self.OPTIONS(**chosen)
        return options

    @abstractmethod
    def read(self, g: GraphBuilder, network: Any, options: Options, images: str, penalty: str | None = None) -> Answer:
        """Write the nodes from pixels to answer.

        Args:
            g: The builder.
            network: In eval mode.
            options: From `options`.
            images: Name of the input, uint8 `(B, H, W, 3)`.
            penalty: Float32 `(B or 1, C)`, to be added to the logits before every decision, for it keeps classes from being
                read; None: all may be. Only with `RESTRICTS`.
        """

    def written_out(self, options: Options) -> Options:
        """The options for the same graph without loops, which must read alike; `options` itself if the graph has no loops."""
        return options

    def network_that_reads_so(self, network: Any, options: Options) -> Any:
        """The network, set to read as the graph with these options does."""
        return network

    def described(self, network: Any, options: Options) -> dict[str, Any]:
        """The metadata fields that only the recogniser knows."""
        return {"decode_mode": "nar", "refine_iters": 0, "max_label_length": network.config.max_label_length}

    def reference(self, network: Any, pixels: NDArray[np.uint8], allowed: Allowed | None = None) -> Reference:
        """What the network reads on uint8 `(N, H, W, 3)`; by default the best class of each step, 0 ends the text.

        Args:
            network: In eval mode.
            pixels: The crops.
            allowed: bool `(N, characters)`: which may be read; None: all. Only with `RESTRICTS`.
        """
        return read_steps(every_pass(network, pixels, allowed))

    def write(
        self,
        g: GraphBuilder,
        network: Any,
        options: Options,
        *,
        with_logits: bool = False,
        top: int = 0,
        with_allowed: bool = False,
    ) -> None:
        """Write the whole graph, with inputs and outputs as `artifact.metadata` has them.

        Args:
            g: An empty builder, of the precision to write.
            network: Its weights are read as they are in eval mode.
            options: What is chosen.
            with_logits: Give the logits too.
            top: How many candidates of each step to give too; 0: none.
            with_allowed: Take the input `allowed`.

        Raises:
            ExportError: It cannot give or take that.
        """
        (height, width), name = network.config.img_size, network.config.RECOGNISER
        images = g.input(INPUT_NAME, TensorProto.UINT8, (BATCH, height, width, 3))
        if not with_allowed:
            answer = self.read(g, network, options, images)
        elif self.RESTRICTS:
            answer = self.read(g, network, options, images, write_penalty(g, len(network.config.charset_train)))
        else:
            raise ExportError(f"{name!r} cannot be told which characters to read: leave --allowed out")
        steps = self.described(network, options)["max_label_length"] + 1
        classes = len(network.config.charset_train) + 1
        g.scope("answer")
        probabilities = answer.probabilities
        if answer.logits is not None and (top or not answer.confidences):
            probabilities = probabilities or g.softmax(answer.logits)
        confidences = answer.confidences or largest(g, probabilities or "")
        g.output(answer.token_ids, TOKEN_IDS_NAME, TensorProto.INT64, (BATCH, steps))
        g.output(confidences, CONFIDENCES_NAME, TensorProto.FLOAT, (BATCH, steps))
        if with_logits:
            if answer.logits is None:
                raise ExportError(f"{name!r} has no logits for each step of a text: leave --with-logits out")
            g.output(answer.logits, LOGITS_NAME, TensorProto.FLOAT, (BATCH, steps, classes))
        if top:
            if answer.logits is None or probabilities is None:
                raise ExportError(f"{name!r} has no candidates for each step of a text: leave --top out")
            if top > classes:
                raise ExportError(f"--top {top} is more than the {classes} classes of a step")
            write_top(g, answer.logits, probabilities, top, steps)


def write_penalty(g: GraphBuilder, characters: int) -> str:
    """Write the input `allowed` and what is added to the logits for it: float32 `(B or 1, C)`, `FORBIDDEN` or 0."""
    g.scope("allowed")
    allowed = g.optional_input(ALLOWED_NAME, np.ones((1, characters), np.bool_), ("rows", characters))
    with g.full_precision():
        values = [g.constant(np.array(value), name) for value, name in ((0.0, "no_penalty"), (FORBIDDEN, "forbidden"))]
        of_characters = g.node("Where", [allowed, *values])
        # The end of the text may always be read. Without the batch size its column is had by padding with zeros.
        return g.node("Pad", [of_characters, g.constant(np.array([0, 1, 0, 0]), "end_in_front")])


def largest(g: GraphBuilder, probabilities: str) -> str:
    """Write the largest probability of each step: float32 `(B, S, C)` to `(B, S)`."""
    return g.node("ReduceMax", [probabilities, g.constant(np.array([-1]), "last_axis")], keepdims=0)


def write_top(g: GraphBuilder, logits: str, probabilities: str, count: int, steps: int) -> None:
    """Write the outputs that have the best classes of each step, and their probabilities.

    The order is that of the logits: probabilities that are rounded to the same number would put another class first than the
    token.
    """
    _, ids = g.top(logits, count)
    g.output(ids, TOP_IDS_NAME, TensorProto.INT64, (BATCH, steps, count))
    found = g.node("GatherElements", [probabilities, ids], axis=-1)
    g.output(found, TOP_CONFIDENCES_NAME, TensorProto.FLOAT, (BATCH, steps, count))


@torch.inference_mode()
def every_pass(network: Network, pixels: NDArray[np.uint8], allowed: Allowed | None = None) -> list[Tensor]:
    """Logits, float `(N, S, C)` in the network's precision, of every pass over uint8 `(N, H, W, 3)`.

    Args:
        network: Reads them.
        pixels: The crops.
        allowed: As for `Graph.reference`.
    """
    dtype = next(network.parameters()).dtype
    crops = [normalise(part).to(dtype) for part in torch.split(torch.from_numpy(pixels), REFERENCE_BATCH)]
    if allowed is None:
        parts = [network.passes(part) for part in crops]
    else:
        rows = torch.split(torch.from_numpy(allowed), REFERENCE_BATCH)
        parts = [network.passes(part, of_part) for part, of_part in zip(crops, rows, strict=True)]
    return [torch.cat(same_pass) for same_pass in zip(*parts, strict=True)]


def read_steps(passes: Sequence[Tensor]) -> Reference:
    """The reference of a reading by steps, from the logits of every pass, float `(N, S, C)`; class 0 ends the text.

    Only the steps up to and including the end token carry meaning, in every pass.
    """
    margins = torch.full((len(passes[0]),), torch.inf)
    for logits in passes:
        best = logits.topk(2, -1).values
        carries_meaning = torch.arange(logits.shape[1]) < _meaningful_steps(logits.argmax(-1))[:, None]
        gaps = torch.where(carries_meaning, best[..., 0] - best[..., 1], torch.inf)
        margins = torch.minimum(margins, gaps.min(-1).values)
    confidences, token_ids = passes[-1].softmax(-1).max(-1)
    return Reference(
        token_ids=token_ids.numpy(),
        confidences=confidences.numpy(),
        logits=passes[-1].numpy(),
        steps=_meaningful_steps(token_ids).numpy(),
        margins=margins.numpy(),
    )


def _meaningful_steps(token_ids: Tensor) -> Tensor:
    """int64 `(N, S)` to `(N,)`: steps up to and including the end token, all of them where there is none."""
    before_end = (token_ids == EOS_ID).cumsum(-1) == 0
    return (before_end.sum(-1) + 1).clamp(max=token_ids.shape[1])


_registered: dict[str, Graph[Any]] = {}


def register(name: str, graph: Graph[Any]) -> None:
    """Register the graph of a recogniser that has no module here."""
    _registered[name] = graph


def all_graphs() -> dict[str, Graph[Any]]:
    """The graph of every recogniser that can be exported, by its name."""
    folder = importlib.import_module(__package__)
    found = {}
    for module in pkgutil.iter_modules(folder.__path__):
        graph = getattr(importlib.import_module(f"{__package__}.{module.name}"), "GRAPH", None)
        if graph is not None:
            found[module.name] = graph
    return found | _registered


def graph_of(network: Network) -> Graph[Any]:
    """The graph of a network's recogniser.

    Raises:
        ExportError: There is none.
    """
    graphs, name = all_graphs(), network.config.RECOGNISER
    if name not in graphs:
        raise ExportError(f"a network of {name!r} cannot be exported: there are graphs for {', '.join(graphs)}")
    return graphs[name]
