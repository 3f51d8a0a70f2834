"""What the exported graphs of the golden models give."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tests.export_models import run, serialised, write_graph
from tests.golden.goldens import arrays, decode_options, network


def exportable(key: str) -> bool:
    """An artifact always reads to its full length; early stopping only leaves out what follows the end."""
    return "max" not in key


def exported_outputs(name: str, key: str, *, early_exit: bool = False) -> list[NDArray[np.float32]]:
    """Token ids, confidences and logits of the golden crops."""
    batch, options = decode_options(key, torch.from_numpy(arrays(name)["input_u8"]))
    mode = "ar" if options["decode_ar"] else "nar"
    graph = write_graph(network(name), mode, options["refine_iters"], early_exit=early_exit, with_logits=True)
    return run(serialised(graph), batch.numpy(), len(batch))
