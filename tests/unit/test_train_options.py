"""Options of the training job: files, the Trainer's, and what they make of the network and the schedule."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, replace
from itertools import product
from pathlib import Path

import pytest
import torch

from model.charsets import CHARSETS, PRINTABLE
from model.errors import ConfigError
from model.recognisers.parseq.config import NAMED, PARSeqConfig
from model.recognisers.parseq.network import PARSeq
from model.recognisers.registry import recognisers
from model.training.data import split_weight
from model.training.options import RECIPES, TrainOptions, options_of, recipe_names
from model.training.schedule import rate_factor, scaled_rate
from model.training.train import network_config, parse_args, weights_name


def test_the_trainers_options_are_checked_and_built() -> None:
    timer = '{"class_path": "lightning.pytorch.callbacks.Timer", "init_args": {"duration": "00:01:00:00"}}'
    words = ["--trainer.precision", "bf16-mixed", "--trainer.accumulate_grad_batches=4", "--trainer.callbacks", timer]
    _, options = parse_args(["--output", "x", *words])
    assert (options["precision"], options["accumulate_grad_batches"]) == ("bf16-mixed", 4)
    assert type(options["callbacks"]).__name__ == "Timer"
    assert parse_args(["--output", "x"])[1] == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer.precisoin", "32"], "unrecognized arguments: --trainer.precisoin"),
        (["--trainer.accumulate_grad_batches", "four"], "accumulate_grad_batches"),
        (["--trainer.max_steps", "4"], "--trainer.max_steps is set by the job: use --steps"),
        (["--nonsense", "4"], "unrecognized arguments: --nonsense"),
        (["--steps", "four"], "--steps: invalid int value"),
        (["--run", "nope.yaml"], "cannot read the run file nope.yaml .*nano, parseq"),
        (["--beta2", "1"], "--beta2 must be at least 0 and less than 1, not 1.0"),
    ],
)
def test_wrong_options_are_one_message(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_args(["--output", "x", *words])
    error = capsys.readouterr().err
    assert len(error.splitlines()) <= 2
    assert re.search(message, error)


@pytest.mark.parametrize(
    ("words", "length"),
    [
        ([], (6000, None)),
        (["--steps", "9"], (9, None)),
        (["--epochs", "9"], (6000, 9.0)),
        (["--run", "parseq"], (6000, 20.0)),
        (["--run", "parseq", "--steps", "9"], (9, None)),
        (["--steps=9", "--run", "parseq"], (9, None)),
        (["--run", "parseq", "--epochs", "3"], (6000, 3.0)),
        (["--run", "short.yaml"], (9, None)),
        (["--run", "short.yaml", "--epochs", "3"], (6000, 3.0)),
        (["--run", "parseq", "--run", "short.yaml"], (9, None)),
        (["--run", "short.yaml", "--run", "parseq"], (6000, 20.0)),
        (["--run", "short.yaml", "--run", "parseq", "--steps", "8"], (8, None)),
    ],
)
def test_steps_and_epochs_the_last_one_given_wins(
    words: list[str], length: tuple[int, float | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short.yaml").write_text("steps: 9\n")
    args, _ = parse_args(["--output", "x", *words])
    assert (args.steps, args.epochs) == length


def test_a_network_of_ones_own_wins_over_that_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("config: mine.json\n")
    args, _ = parse_args(["--output", "x", "--run", "parseq", "--config", "mine.json"])
    assert (args.model, args.config) == (None, Path("mine.json"))
    args, _ = parse_args(["--output", "x", "--run", str(tmp_path / "run.yaml"), "--model", "parseq"])
    assert (args.model, args.config) == ("parseq", None)


@pytest.mark.parametrize(
    "words",
    [["--steps", "9", "--epochs", "3"], ["--run", "both.yaml", "--steps", "9"], ["--model", "parseq", "--config", "a.json"]],
)
def test_options_that_exclude_each_other(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("both.yaml").write_text("steps: 9\nepochs: 3\n")
    with pytest.raises(SystemExit, match="2"):
        parse_args(["--output", "x", *words])
    assert "exclude each other: give one of them" in capsys.readouterr().err


def test_a_file_of_options(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "steps: 7\nsource: [a=2, render]\nlazy: false\nrender_fonts: fonts\ntrainer:\n  precision: bf16-mixed\n"
        "  callbacks: {class_path: lightning.pytorch.callbacks.Timer}\n"
    )
    args, options = parse_args(["--run", str(file), "--output", "x", "--source", "b", "--trainer.precision", "32-true"])
    assert (args.steps, args.source, args.lazy, args.render_fonts) == (7, ["a=2", "render", "b"], False, [Path("fonts")])
    assert options["precision"] == "32-true"
    assert type(options["callbacks"]).__name__ == "Timer"
    assert parse_args(["--run", str(file), "--output", "x", "--steps", "8"])[0].steps == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a", "must hold a mapping"),
        ("trainer: 3", "must hold a mapping"),
        ("a: [", "not valid YAML"),
        ("run: b", "another run file"),
    ],
)
def test_files_that_are_no_options(tmp_path: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(SystemExit):
        parse_args(["--run", str(tmp_path / "run.yaml"), "--output", "x"])
    assert message in capsys.readouterr().err


def test_options_written_in_code_are_those_of_the_command_line() -> None:
    written = TrainOptions(output=Path("x"), steps=9, source=["a=2"], keep_whitespace=False)
    assert parse_args(["--output", "x", "--steps", "9", "--source", "a=2", "--no-keep-whitespace"])[0] == written
    assert parse_args(["--output", "x"])[0] == TrainOptions(output=Path("x"))
    with pytest.raises(FrozenInstanceError):
        written.steps = 8  # type: ignore[misc]


def test_the_recipe_of_the_small_model_is_the_default() -> None:
    chosen, options = parse_args(["--run", "nano", "--output", "x"])
    default, none = parse_args(["--output", "x"])
    told = {"run": ["nano"], "model": "parseq-nano", "charset": "94", "of_recogniser": {"glyph_weight": 1.0}}
    assert vars(chosen) == {**vars(default), **told}
    parseq = recognisers()["parseq"]
    assert options_of(parseq, chosen.of_recogniser) == options_of(parseq, {}) == {"glyph_weight": 1.0, "ctc_weight": 0.0}
    assert (options, none) == ({"gradient_clip_val": 1.0}, {})


@pytest.mark.parametrize(("model", "charset"), list(product(NAMED, CHARSETS)))
def test_every_model_has_every_charset(model: str, charset: str) -> None:
    args, _ = parse_args(["--run", "parseq", "--output", "x", "--model", model, "--charset", charset])
    config = network_config(args, None)
    assert config == replace(NAMED[model], charset_train=CHARSETS[charset])
    with torch.device("meta"):
        assert PARSeq(config).head.out_features == int(charset) + 1
    assert (args.batch_size, args.lr, args.scale_lr) == (384, 7e-4, True)


def test_recipes_are_packaged() -> None:
    ours, reference = {"mini", "nano"}, {"parseq", "vitstr", "crnn", "trba", "trbc", "abinet", "abinet-sv", "abinet-lm"}
    assert ours | reference <= set(recipe_names())
    assert "recipes/*.yaml" in (RECIPES.parents[1] / "pyproject.toml").read_text()


def test_charsets_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("abc\nжщэ\na\n", encoding="utf-8")
    config = network_config(parse_args(["--output", "x", "--charset", str(tmp_path / "letters.txt")])[0], None)
    assert config.charset_train == "abcжщэ"
    args, _ = parse_args(["--output", "x", "--model", "parseq-nano", "--add-characters", "äöa ", "--max-label-length", "40"])
    config = network_config(args, None)
    assert (config.charset_train, config.max_label_length) == (PRINTABLE + "äö ", 40)
    assert weights_name(args, config) == "parseq-nano"
    with pytest.raises(ConfigError, match="the charset '35' is none of 36, 62, 94, nor a UTF-8 text file"):
        network_config(parse_args(["--output", "x", "--charset", "35"])[0], None)


def test_a_resumed_run_keeps_its_network() -> None:
    mine = PARSeqConfig(charset_train="abc", embed_dim=24, enc_num_heads=2, dec_num_heads=2)
    checkpoint = {"hyper_parameters": {"config": mine.to_dict()}}
    assert network_config(parse_args(["--output", "x"])[0], checkpoint) == mine
    with pytest.raises(ConfigError, match="the run in x has charset_train 'abc', not 'abcd'"):
        network_config(parse_args(["--output", "x", "--add-characters", "d"])[0], checkpoint)


def test_weights_of_sources() -> None:
    assert split_weight("a/b") == ("a/b", 1.0)
    assert split_weight("a/b=0.25") == ("a/b", 0.25)
    assert split_weight("a=b/c") == ("a=b/c", 1.0)
    assert split_weight("a=b=2") == ("a=b", 2.0)


@pytest.mark.parametrize(("steps", "fraction"), [(100, 0.075), (1000, 0.3), (7, 0.5)])
def test_one_cycle_is_pytorchs(steps: int, fraction: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2.0, steps, pct_start=fraction, cycle_momentum=False)
    for step in range(steps):
        factor = rate_factor("onecycle", step, steps, warmup_steps=0, decay_fraction=0, warmup_fraction=fraction)
        assert 2 * factor == pytest.approx(schedule.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        if step + 1 < steps:
            schedule.step()


def test_the_rate_is_scaled_as_the_reference_does() -> None:
    assert scaled_rate(7e-4, 384, 2, 1) == pytest.approx(7e-4 * 1.5 * 2**0.5)
    assert scaled_rate(1.0, 64, 1, 4) == 1.0
