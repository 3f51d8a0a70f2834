"""Options of `parseq-train` that belong to one recogniser: the job knows none of them by name."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch

from model.command_line import Option
from model.errors import ConfigError
from model.recognisers.registry import recogniser_of, recognisers
from model.training.options import TrainOptions, options_of
from model.training.parsing import parse
from model.training.schedule import scaled_rate
from model.training.train import main, network_config, parse_args
from model.training.tune import TuneOptions
from tests.archives import png, write_lmdb
from tests.toy_recogniser import TOY, toy_registered
from tests.training_runs import ROOT, words


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with toy_registered():
        yield


def chosen(*given: str) -> dict[str, Any]:
    args, _ = parse_args(["--output", "x", *given])
    return options_of(recogniser_of(network_config(args, None)), args.of_recogniser, args.run)


def test_each_recogniser_has_its_own_defaults() -> None:
    assert chosen() == {"glyph_weight": 1.0, "ctc_weight": 0.0}
    assert chosen("--model", "toy") == {"blank_penalty": 0.0, "naming_lr": None}
    assert chosen("--model", "toy", "--blank-penalty", "0.5") == {"blank_penalty": 0.5, "naming_lr": None}
    assert chosen("--ctc-weight", "0.5", "--model", "parseq") == {"glyph_weight": 1.0, "ctc_weight": 0.5}


def test_files_hold_them_and_the_command_line_wins(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("model: toy\nblank-penalty: 0.25\nnaming-lr: 3.0e-4\n")
    run = ["--run", str(tmp_path / "run.yaml")]
    assert chosen(*run) == {"blank_penalty": 0.25, "naming_lr": 3e-4}
    assert chosen(*run, "--blank-penalty", "2") == {"blank_penalty": 2.0, "naming_lr": 3e-4}
    assert chosen("--run", "parseq") == {"glyph_weight": 0.0, "ctc_weight": 0.0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--model", "toy", "--ctc-weight", "1"], "--ctc-weight is an option of PARSeq, the network is a Toy: leave it out"),
        (["--blank-penalty", "1"], "--blank-penalty is an option of Toy, the network is a PARSeq: leave it out"),
        (["--model", "toy", "--run", "nano"], "is a Toy: leave it out, or take its recipe: --run parseq"),
    ],
)
def test_those_of_another_recogniser_are_told_whose_they_are(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        chosen(*given)
    assert message in str(caught.value)


def test_a_wrong_call_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output", str(tmp_path / "run"), "--blank-penalty", "1", "--source", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "parseq-train: --blank-penalty is an option of Toy, the network is a PARSeq: leave it out"
    ]
    with pytest.raises(SystemExit, match="2"):
        parse_args(["--output", "x", "--blank-penalty", "much"])
    assert "--blank-penalty: invalid float value: 'much'" in capsys.readouterr().err


def test_the_help_shows_whose_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse_args(["--help"])
    shown = capsys.readouterr().out
    ours, toys = shown.index("\nof PARSeq:\n"), shown.index("\nof Toy:\n")
    assert ours < shown.index("--glyph-weight GLYPH_WEIGHT") < toys < shown.index("--blank-penalty")
    assert "weight of the glyph-centre loss (1.0)" in " ".join(shown.split())


def test_an_option_that_two_recognisers_have() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Others:
        blank_penalty: Annotated[float, Option("(%(default)s)")] = 0.75

    recognisers()["other"] = replace(TOY, name="other", class_name="Other", training_options=Others)
    try:
        args, _ = parse_args(["--output", "x"])
        assert options_of(recognisers()["other"], args.of_recogniser) == {"blank_penalty": 0.75}
        args, _ = parse_args(["--output", "x", "--blank-penalty", "3"])
        assert options_of(recognisers()["other"], args.of_recogniser) == {"blank_penalty": 3.0}
        with pytest.raises(ConfigError, match="--blank-penalty is an option of Toy and Other, the network is a PARSeq"):
            options_of(recognisers()["parseq"], args.of_recogniser)
    finally:
        del recognisers()["other"]


def test_they_are_options_of_a_search_too() -> None:
    options, _ = parse(TuneOptions, ["--output", "x", "--model", "toy", "--blank-penalty", "2", "--trials", "3"], "parseq-tune")
    assert (options.trials, options.of_recogniser) == (3, {"blank_penalty": 2.0})


def test_the_job_knows_none_of_them() -> None:
    names = {each.name for entry in recognisers().values() if entry.training_options for each in fields(entry.training_options)}
    assert {"glyph_weight", "blank_penalty"} <= names
    assert not names & {each.name for each in fields(TuneOptions)}
    for path in (ROOT / "model" / "training").glob("*.py"):
        source = path.read_text()
        assert not [name for name in names if name in source], path
        assert not [name for name in recognisers() if f"model.recognisers.{name}" in source], path


def run_toy(tmp_path: Path, name: str, **more: Any) -> Path:
    if not (tmp_path / "crops").exists():
        write_lmdb(tmp_path / "crops", [(png(i), ["a", "ba", "abba"][i % 3]) for i in range(12)])
    run = {
        "--model": "toy",
        "--source": tmp_path / "crops",
        "--validation": tmp_path / "crops",
        "--output": tmp_path / name,
        "--batch-size": 6,
        "--steps": 2,
        "--threads": 1,
        "--trainer.enable_progress_bar": "false",
        "--trainer.log_every_n_steps": 1,
    }
    given = {f"--{key if '.' in key else key.replace('_', '-')}": value for key, value in more.items()}
    assert main(words({**run, **given})) == 0
    return tmp_path / name


def checkpoint(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run / "last.ckpt", weights_only=True)
    return found


def logged(run: Path, *names: str) -> list[list[float]]:
    """What the newest log has of these, step by step."""
    with max(run.glob("log-*")).joinpath("metrics.csv").open() as file:
        return [[float(row[name]) for name in names] for row in csv.DictReader(file) if row[names[0]]]


def rates(run: Path) -> list[list[float]]:
    """Of both groups in each step."""
    return logged(run, "lr-AdamW/pg1", "lr-AdamW/pg2")


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
class TestRuns:
    def test_the_training_gets_them(self, tmp_path: Path) -> None:
        without, with_it = (run_toy(tmp_path, f"run{weight}", blank_penalty=weight) for weight in (0.0, 100.0))
        assert logged(with_it, "loss")[0][0] > logged(without, "loss")[0][0] + 1
        hyper_parameters = checkpoint(with_it)["hyper_parameters"]
        assert (hyper_parameters["blank_penalty"], hyper_parameters["naming_lr"]) == (100.0, None)

    def test_rates_of_ones_own_are_scaled_as_the_common_one(self, tmp_path: Path) -> None:
        common = {"lr": 0.01, "naming_lr": 0.04, "warmup_steps": 0, "decay_fraction": 0}
        assert rates(run_toy(tmp_path, "plain", **common)) == [[0.01, 0.04]] * 2
        run = run_toy(tmp_path, "scaled", scale_lr=True, **common, **{"trainer.accumulate_grad_batches": 2})
        # Logged with each of the batches that a step accumulates.
        assert rates(run) == [pytest.approx([scaled_rate(rate, 6, 1, 2) for rate in (0.01, 0.04)])] * 4
        # A resumed run goes by the rates that it is given then, in every step.
        assert rates(run_toy(tmp_path, "plain", **{**common, "lr": 0.02, "steps": 5, "resume": True})) == [[0.02, 0.04]] * 3

    def test_the_second_beta(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = run_toy(tmp_path, "default")
        assert {tuple(group["betas"]) for group in checkpoint(run)["optimizer_states"][0]["param_groups"]} == {(0.9, 0.98)}
        assert checkpoint(run)["hyper_parameters"]["beta2"] == TrainOptions.beta2 == 0.98
        run_toy(tmp_path, "default", resume=True, steps=3, beta2=0.999)
        assert "goes on with --beta2 0.98, as it began" in capsys.readouterr().err
        assert checkpoint(run)["hyper_parameters"]["beta2"] == 0.98
        assert {group["betas"][1] for group in checkpoint(run)["optimizer_states"][0]["param_groups"]} == {0.98}
        run = run_toy(tmp_path, "slower", beta2=0.999)
        assert {group["betas"][1] for group in checkpoint(run)["optimizer_states"][0]["param_groups"]} == {0.999}

    def test_without_a_recipe_it_is_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run_toy(tmp_path, "run")
        assert "the options are those for parseq-nano, a small network; --run parseq has" in capsys.readouterr().err
        run_toy(tmp_path, "run", resume=True)
        assert "no --run" not in capsys.readouterr().err
