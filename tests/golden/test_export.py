"""Exported graphs against the reference implementation's logits and readings."""

from __future__ import annotations

import numpy as np
import pytest

from tests.golden.exported import exportable, exported_outputs
from tests.golden.goldens import MODELS, TOLERANCE, arrays, description

LOGITS = [
    (name, key.removeprefix("logits_"))
    for name in MODELS
    for key in sorted(arrays(name))  # those of one graph follow one another
    if key.startswith("logits_") and exportable(key)
]
LONG = {("parseq-dec2", "ar_r0"), ("parseq-dec2", "ar_r1")}
"""Two layers written out for each of 26 steps, which ONNX Runtime opens slowly. `ar_r2` has all of it; loops read these two."""


@pytest.mark.parametrize(("name", "key"), [each for each in LOGITS if each not in LONG])
def test_logits_and_readings(name: str, key: str) -> None:
    assert_equals_reference(name, key, early_exit=False)


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, key in LOGITS if key.startswith("ar")])
def test_a_loop_stops_where_the_reference_does(name: str, key: str) -> None:
    assert_equals_reference(name, key, early_exit=True)


def assert_equals_reference(name: str, key: str, *, early_exit: bool) -> None:
    token_ids, confidences, logits = exported_outputs(name, key, early_exit=early_exit)
    expected = arrays(name)[f"logits_{key}"]
    np.testing.assert_allclose(logits[:, : expected.shape[1]], expected, atol=TOLERANCE, rtol=0)
    readings = description(name)["readings"][key]
    charset = description(name)["system_args"]["charset_train"]
    for row, text, confidence in zip(range(len(token_ids)), readings["strings"], readings["confidence"], strict=True):
        ids = token_ids[row].tolist()
        length = ids.index(0) if 0 in ids else len(ids)
        assert "".join(charset[token - 1] for token in ids[:length]) == text
        assert float(confidences[row, : length + 1].prod()) == pytest.approx(confidence, rel=1e-3, abs=1e-12)
