"""The reference implementation's character sets: 36, 62 and 94 characters, from training to scores."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from artifact.metadata import ArtifactMetadata
from artifact.session import open_cpu_session
from export.__main__ import main as export
from model.charsets import CHARSETS
from model.checkpoints.loading import load
from model.recognisers.registry import named_configs, recogniser_of
from model.training.train import main as train
from reading.evaluate import main as evaluate
from tests.archives import picture, write_lmdb
from tests.training_runs import TINY, words

SMALL: dict[str, dict[str, Any]] = {
    "parseq": TINY,
    "vitstr": {"recogniser": "vitstr", "embed_dim": 16, "num_heads": 2, "depth": 1, "max_label_length": 6},
    "trba": {"recogniser": "trba", "hidden_size": 8, "output_channel": 16, "num_fiducial": 4, "max_label_length": 6},
    "abinet": {
        "recogniser": "abinet",
        "d_model": 32,
        "nhead": 2,
        "d_inner": 32,
        "v_num_layers": 1,
        "l_num_layers": 1,
        "max_label_length": 6,
    },
}
LABELS = ["Ab-1", "NO!", "x", "it's", "07"]
CROPS = {"36": "5", "62": "5", "94": "5", "model": "5"}


@pytest.mark.parametrize("size", CHARSETS)
@pytest.mark.parametrize("name", named_configs())
def test_every_network_has_a_class_for_each_character(name: str, size: str) -> None:
    config = named_configs()[name]
    kind = recogniser_of(config)
    config = kind.config.from_mapping({**config.to_dict(), "charset_train": CHARSETS[size]})
    with torch.device("meta"):
        state = kind.build_network(config).state_dict()
    tensor, axis = kind.adapting.classes
    # The end or the blank, and what a recogniser can predict besides.
    assert int(size) + 1 <= state[tensor].shape[axis] <= int(size) + 3


@pytest.mark.slow
@pytest.mark.usefixtures("small_gate", "few_batches", "no_pictures")
# 94 is what all other tests have. The gate finds networks of columns undecided after so few steps.
@pytest.mark.parametrize(("name", "size"), list(zip(SMALL, ["36", "62", "36", "62"], strict=True)))
def test_from_training_to_scores(name: str, size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = write_lmdb(tmp_path / "data", [(picture(index), label) for index, label in enumerate(LABELS)])
    (tmp_path / "small.json").write_text(json.dumps(SMALL[name]))
    run = {
        "--config": tmp_path / "small.json",
        "--charset": size,
        "--source": archive,
        "--validation": archive,
        "--output": tmp_path / "run",
        "--batch-size": 5,
        "--steps": 2,
        "--threads": 1,
        "--trainer.enable_progress_bar": "false",
    }
    assert train(words(run)) == 0
    told = capsys.readouterr().err
    # What a set lacks is told; the case, which 36 characters fold, is no loss.
    assert "3 labels lost characters that the charset has not" in told
    weights, artifact = tmp_path / "run" / "small.safetensors", tmp_path / "small.onnx"
    assert load(weights=weights).config.charset_train == CHARSETS[size]
    assert export(["--weights", str(weights), "--output", str(artifact)]) == 0
    metadata = ArtifactMetadata.from_map(open_cpu_session(artifact).get_modelmeta().custom_metadata_map)
    assert metadata.charset == CHARSETS[size]
    rows = []
    for model in (["--weights", str(weights)], ["--artifact", str(artifact)]):
        table = tmp_path / "scores.csv"
        options = ["--charset", *CROPS, "--threads", "1", "--csv", str(table)]
        assert evaluate(["--data", str(archive), *model, *options]) == 0
        with table.open() as file:
            rows.append([(row["charset"], row["crops"], row["accuracy"]) for row in csv.DictReader(file)])
    assert rows[0] == rows[1]
    assert {charset: crops for charset, crops, _ in rows[0]} == CROPS
