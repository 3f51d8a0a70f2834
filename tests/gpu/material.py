"""What the verification reads: graphs, crops, and what a CPU reads on them. A folder, written by `tests.gpu.write_material`.

Nothing here needs torch: the machine with the GPU has none.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.metadata import Precision

CONTENTS = "contents.json"


class MaterialError(RuntimeError):
    """The folder cannot be used; the message says how to make it."""


@dataclass(frozen=True, slots=True)
class Demand:
    """How far a GPU's readings may be from a CPU's; as the export's parity gate has it for half precision."""

    floor: float
    """Smallest share of equal texts among crops that are not near ties."""
    tie_margin: float
    """A crop is a near tie if in some decision its two best logits are closer than this."""
    confidence: float
    """Largest mean difference of a token's probability, over the tokens of equal texts."""
    min_decided: float
    """With a smaller share of crops that are not near ties the comparison says little, and that is told."""


@dataclass(frozen=True, slots=True)
class Graph:
    """One file to be run."""

    network: str
    """What it was made of: the name of recorded outputs, or of the bundled model."""
    recogniser: str
    precision: Precision
    file: str
    """In the folder."""
    gpu: bool = True
    """Whether it is meant for GPUs: all of it is to run there."""
    pace: str = ""
    """What it is called where speed is measured; empty: there it is left out."""
    tie_margin: float = 0.0
    """Where a near tie begins with this network; 0: where the demand says."""
    fault: str = ""
    """Why it cannot be asked to read as the float32 graph does on a CPU: then it is no fault of a GPU either."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a CPU reads with the float32 graph of a network. N crops, S steps."""

    pixels: NDArray[np.uint8]
    """uint8 `(N, H, W, 3)`: crops of the recorded outputs, then drawn ones."""
    token_ids: NDArray[np.int64]
    """`(N, S)`."""
    confidences: NDArray[np.float32]
    """`(N, S)`."""
    margins: NDArray[np.float32]
    """`(N,)`: the smallest gap between the two best logits in any decision that the text depends on."""


@dataclass(frozen=True, slots=True)
class Material:
    """The folder's contents."""

    folder: Path
    graphs: tuple[Graph, ...]
    demand: Demand
    crops: str
    """What the crops are, for the table."""

    def path(self, graph: Graph) -> Path:
        """Of its file."""
        return self.folder / graph.file

    def expected(self, network: str) -> Expected:
        """Of a network."""
        with np.load(self.folder / f"{network}.npz") as stored:
            own, size = stored["own"], "x".join(map(str, stored["size"]))
            with np.load(self.folder / f"drawn-{size}.npz") as drawn:
                pixels = np.concatenate([own, drawn["pixels"]])
            return Expected(pixels, stored["token_ids"], stored["confidences"], stored["margins"])

    def write(self) -> None:
        """Write the list of contents, last of all: a folder with one is whole."""
        contents: dict[str, Any] = asdict(self)
        del contents["folder"]
        (self.folder / CONTENTS).write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


def read_material(folder: Path) -> Material:
    """Open a folder.

    Raises:
        MaterialError: There is none, or it was not finished.
    """
    try:
        contents = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MaterialError(
            f"{folder} has no {CONTENTS}: write it with `python -m tests.gpu.write_material {folder}`"
        ) from error
    graphs = tuple(Graph(**graph) for graph in contents["graphs"])
    return Material(folder, graphs, Demand(**contents["demand"]), contents["crops"])
