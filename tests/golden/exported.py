"""What the exported graphs of the golden models give."""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from export.graphs.parseq.graph import Decode
from tests.export_models import open_session, run_session, serialised, write_graph
from tests.golden.goldens import arrays, decode_options, network


def exportable(key: str) -> bool:
    """An artifact always reads to its full length; early stopping only leaves out what follows the end."""
    return "max" not in key


@functools.cache
def exported_outputs(name: str, key: str, *, early_exit: bool) -> list[NDArray[np.float32]]:
    """Token ids, confidences and logits of the golden crops; kept, for the compact and the full set ask for the same ones."""
    batch, options = decode_options(key, torch.from_numpy(arrays(name)["input_u8"]))
    session = _session(name, "ar" if options["decode_ar"] else "nar", options["refine_iters"], early_exit)
    return run_session(session, batch.numpy(), len(batch))


# The largest network fills hundreds of megabytes, and keys of one graph follow one another.
@functools.lru_cache(maxsize=1)
def _session(name: str, decode: Decode, refine_iters: int, early_exit: bool) -> onnxruntime.InferenceSession:
    graph = write_graph(network(name), decode, refine_iters, early_exit=early_exit, with_logits=True)
    return open_session(serialised(graph))
