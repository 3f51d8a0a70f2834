from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.errors import ConfigError
from model.recognisers.parseq.config import NAMED, PARSeqConfig
from model.recognisers.registry import named_config, read_config


def test_names_with_underscores_are_the_same() -> None:
    assert named_config("parseq_tiny") == NAMED["parseq-tiny"]


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'nope'.*parseq-tiny"):
        named_config("nope")


def test_training_hyper_parameters_are_ignored() -> None:
    assert PARSeqConfig.from_mapping({"lr": 1e-3, "batch_size": 4, "embed_dim": 96}) == PARSeqConfig(embed_dim=96)


@pytest.mark.parametrize("config", NAMED.values())
def test_a_config_survives_json(config: PARSeqConfig) -> None:
    assert PARSeqConfig.from_mapping(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"embed_dims": 96}, "unknown configuration names: embed_dims"),
        ({"embed_dim": "96"}, "embed_dim must be of type int"),
        ({"decode_ar": 1}, "decode_ar must be of type bool"),
        ({"refine_iters": True}, "refine_iters must be of type int"),
        ({"img_size": [32]}, "img_size must be two integers"),
        ({"img_size": [30, 128]}, "image height 30 is not a multiple of the patch height 4"),
        ({"embed_dim": 100}, "embed_dim 100 is not a positive multiple of enc_num_heads 6"),
        ({"embed_dim": 0}, "embed_dim 0 is not a positive multiple"),
        ({"charset_train": "aa"}, "charset_train must hold distinct characters"),
        ({"charset_train": ""}, "charset_train must hold distinct characters"),
        ({"dropout": 2.0}, "dropout must be at least 0"),
        ({"dropout": float("nan")}, "dropout must be at least 0"),
        ({"max_label_length": 0}, "max_label_length must be at least 1"),
        ({"refine_iters": -1}, "refine_iters must be at least 0"),
        ({"stem": "conv"}, "stem must be"),
        ({"stem": "residual"}, "the residual stem reduces 8x4"),
    ],
)
def test_bad_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PARSeqConfig.from_mapping(values)


def test_reading_files(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"cls": "PARSeq", "system_args": {"embed_dim": 96}}')
    assert read_config(file) == PARSeqConfig(embed_dim=96)
    for content, message in (("{", "not valid JSON"), ("[" * 100_000, "not valid JSON"), ("[1]", "must hold a JSON object")):
        file.write_text(content)
        with pytest.raises(ConfigError, match=message):
            read_config(file)
    with pytest.raises(ConfigError, match="cannot read the config file"):
        read_config(tmp_path / "none.json")


@pytest.mark.parametrize("name", ["recogniser", "cls", "stem", "embed_dim", "img_size", "a" * 100_000])
def test_what_is_said_of_a_file_is_short_whatever_is_in_it(name: str, tmp_path: Path) -> None:
    (file := tmp_path / "config.json").write_text(json.dumps({name: "b" * 100_000}))
    with pytest.raises(ConfigError) as told:
        read_config(file)
    assert len(str(told.value)) < 1000
