"""Write the folder that the verification of a GPU reads, on a machine with torch; it needs no GPU, and some minutes.

    python -m tests.gpu.write_material FOLDER [--crops 500] [--network NAME...]

Graphs in fp32 and fp16 of every network whose outputs are recorded in `tests/golden`, and of the bundled model, with the steps
written out, as `parseq-export --for cuda` writes them; the bundled artifact as it is; crops; what a CPU reads on them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from artifact.fit import fit
from artifact.metadata import INPUT_NAME, ArtifactMetadata, Precision
from artifact.session import open_cpu_session
from export.gate.agreement import DEMANDS, MIN_DECIDED
from export.gate.crops import word_crops
from export.graphs.interface import Reference, graph_of
from export.to_onnx import ExportOptions, build_artifact, weights_digest
from model.checkpoints.choose import choose_network
from model.checkpoints.loading import weights_path
from model.synth.dataset import Recipe
from model.synth.lettering.fonts import FontsNotFoundError
from model.synth.words.corpus import DictionaryNotFoundError
from service.config import BUNDLED_ARTIFACT
from tests.golden import goldens
from tests.gpu.material import CONTENTS, Demand, Expected, Graph, Material
from tests.gpu.texts import compare, equal_texts

GOLDEN = (*goldens.MODELS, "vitstr", "vitstr-full", "crnn", "crnn-leaky", "trba-tame", "trbc-tame", "abinet", "abinet-sv")
BUNDLED = BUNDLED_ARTIFACT.stem
PACED = {"parseq-full": "parseq", "parseq-tiny-full": "parseq-tiny", BUNDLED: BUNDLED}
N_CROPS = 500
SEED = 7
BATCH = 32
PRECISIONS: Sequence[Precision] = ("fp32", "fp16")
TRIED_IN_HALF = 128
"""Crops that the fp16 graph reads on the CPU, too: slowly, for a CPU has no arithmetic for it."""
TIES_IN_HALF = 4.0
"""With small logits a near tie begins at so many times the largest margin at which half precision was seen to matter."""
MIN_TIE_MARGIN = 0.002

Pixels = NDArray[np.uint8]


class WrongGraphError(RuntimeError):
    """A graph reads on a CPU what its network does not: there is nothing to hold a GPU to."""


def network_of(name: str) -> tuple[Any, Pixels | None]:
    """A network with its weights, and the crops of its recorded outputs, if it has any."""
    if name == BUNDLED:
        return choose_network(name, None, weights_path(name))[0].eval(), None
    return goldens.network(name), goldens.arrays(name)["input_u8"]


def pictures(count: int) -> tuple[list[Any], str]:
    """Drawn crops of their own sizes, as pictures, and what they are; none where the renderer finds no fonts or words."""
    try:
        source = Recipe("validation", SEED).source()
    except (FontsNotFoundError, DictionaryNotFoundError):
        return [], f"{count} simple drawn crops"
    return [source(number).image for number in range(count)], f"{count} rendered crops"


def drawn_crops(drawn: Sequence[Any], config: Any, count: int) -> Pixels:
    """The same at a network's size, uint8 `(N, H, W, 3)`; drawn with Pillow's font where there are no pictures."""
    if drawn:
        return np.stack([fit(picture, *config.img_size) for picture in drawn])
    words = word_crops(config.img_size, config.charset_train, config.max_label_length, count, SEED)
    return np.stack([crop.pixels for crop in words])


def read_in_pytorch(network: Any, pixels: Pixels, bar: Any) -> Reference:
    """What the network reads, a batch at a time, so that progress shows."""
    graph, parts = graph_of(network), []
    for begin in range(0, len(pixels), BATCH):
        parts.append(graph.reference(network, pixels[begin : begin + BATCH]))
        bar.update(len(parts[-1].steps))
    fields = ("token_ids", "confidences", "logits", "steps", "margins")
    return Reference(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields})


def read_on_a_cpu(artifact: Path, pixels: Pixels) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Token ids and confidences, `(N, S)` each."""
    session = open_cpu_session(artifact, threads=torch.get_num_threads())
    runs = [session.run(None, {INPUT_NAME: pixels[begin : begin + BATCH]})[:2] for begin in range(0, len(pixels), BATCH)]
    ids, confidences = zip(*runs, strict=True)
    return np.concatenate(ids), np.concatenate(confidences)


def reading_of(config: Any, precision: Precision) -> dict[str, Any]:
    """Options of the export: the steps written out, and what ABINet needs in half precision."""
    if config.RECOGNISER == "parseq":
        return {"early_exit": False}
    return {"float32_features": True} if config.RECOGNISER == "abinet" and precision == "fp16" else {}


def write_network(folder: Path, demand: Demand, name: str, drawn: Sequence[Any], count: int, bar: Any) -> Iterator[Graph]:
    """Write one network's graphs and what is expected of them.

    Raises:
        WrongGraphError: The graph and the network disagree on this machine.
    """
    network, own = network_of(name)
    config = network.config
    for precision in PRECISIONS:
        options = ExportOptions(name, weights_digest(network), reading_of(config, precision), precision=precision)
        (folder / f"{name}-{precision}.onnx").write_bytes(build_artifact(network, options).SerializeToString())
    size = "x".join(map(str, config.img_size))
    crops_file = folder / f"drawn-{size}.npz"
    if not crops_file.exists():
        np.savez_compressed(crops_file, pixels=drawn_crops(drawn, config, count))
    own = np.zeros((0, *config.img_size, 3), np.uint8) if own is None else own
    with np.load(crops_file) as stored:
        pixels = np.concatenate([own, stored["pixels"]])
    reference = read_in_pytorch(network, pixels, bar)
    expected = Expected(pixels, *read_on_a_cpu(folder / f"{name}-fp32.onnx", pixels), reference.margins.astype(np.float32))
    found = compare(reference.token_ids, reference.confidences, expected, demand)
    if found.problem:
        raise WrongGraphError(f"{name}: ONNX Runtime on this CPU does not read as PyTorch does: {found}")
    np.savez_compressed(
        folder / f"{name}.npz",
        own=own,
        size=np.array(config.img_size),
        token_ids=expected.token_ids,
        confidences=expected.confidences,
        margins=expected.margins,
    )
    margin, fault = tried_in_half(folder / f"{name}-fp16.onnx", expected, demand)
    for precision in PRECISIONS:
        told = fault if precision == "fp16" else ""
        file, pace = f"{name}-{precision}.onnx", PACED.get(name, "")
        yield Graph(name, config.RECOGNISER, precision, file, pace=pace, tie_margin=margin, fault=told)


def tried_in_half(artifact: Path, expected: Expected, demand: Demand) -> tuple[float, str]:
    """What half precision does to this network, found on the CPU.

    Returns:
        Where a near tie begins: where the demand says, unless too few crops are left so, since the logits are small; then it
        follows from the margins of crops that are read otherwise. And why the fp16 graph cannot be asked to read as the fp32
        graph does; empty if it can.
    """
    n = TRIED_IN_HALF
    few = Expected(expected.pixels[:n], expected.token_ids[:n], expected.confidences[:n], expected.margins[:n])
    token_ids, confidences = read_on_a_cpu(artifact, few.pixels)
    largest = float(few.margins[~equal_texts(token_ids, few.token_ids)].max(initial=0.0))
    margin = demand.tie_margin
    if (expected.margins >= margin).mean() < demand.min_decided:
        margin = min(max(TIES_IN_HALF * largest, MIN_TIE_MARGIN), margin)
    found = compare(token_ids, confidences, few, replace(demand, tie_margin=margin))
    return margin, f"on a CPU, too, {found.problem}" if found.problem else ""


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.write_material", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--crops", type=int, default=N_CROPS, help="crops to draw (default: %(default)s)")
    parser.add_argument("--network", nargs="+", choices=(*GOLDEN, BUNDLED), default=[*GOLDEN, BUNDLED], help="(default: all)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    args = parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    for path in (args.folder / CONTENTS, *args.folder.glob("drawn-*.npz")):
        path.unlink(missing_ok=True)
    drawn, crops = pictures(args.crops)
    half = DEMANDS["fp16"]
    demand = Demand(half.floor, half.tie_margin, half.confidence, MIN_DECIDED)
    graphs: list[Graph] = []
    try:
        with tqdm(total=len(args.network) * args.crops, unit="crop", mininterval=1) as bar:
            for name in args.network:
                bar.set_description(name)
                graphs += write_network(args.folder, demand, name, drawn, args.crops, bar)
    except WrongGraphError as error:
        print(f"write_material: error: {error}", file=sys.stderr)
        return 1
    if BUNDLED in args.network:
        shutil.copy(BUNDLED_ARTIFACT, args.folder)
        said = ArtifactMetadata.from_map(open_cpu_session(BUNDLED_ARTIFACT).get_modelmeta().custom_metadata_map)
        pace = f"{BUNDLED} as bundled"
        graphs.append(Graph(BUNDLED, said.architecture, said.precision, BUNDLED_ARTIFACT.name, gpu=False, pace=pace))
    material = Material(args.folder, tuple(graphs), demand, f"{crops} and those of the recorded outputs")
    material.write()
    print(f"{args.folder}: {len(graphs)} graphs of {len(args.network)} networks; {material.crops}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
