"""Exported graphs against the full golden set, where it lies beside the project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.golden.exported import exportable, exported_outputs
from tests.golden.goldens import FULL, TOLERANCE

SHARED = [
    path
    for name in ("parseq-a", "parseq-dec2", "parseq-p16")
    for path in sorted((FULL / name).glob("logits_*.npy"))
    if exportable(path.stem) and "single" not in path.stem
]


@pytest.mark.shared
@pytest.mark.parametrize("path", SHARED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_logits_of_the_full_set(path: Path) -> None:
    logits = exported_outputs(path.parent.name, path.stem.removeprefix("logits_"), early_exit=False)[2]
    expected = np.load(path)
    np.testing.assert_allclose(logits[:, : expected.shape[1]], expected, atol=TOLERANCE, rtol=0)
