"""`parseq-export`: exit statuses and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from artifact.download import file_sha256
from artifact.metadata import ArtifactMetadata
from export import __main__ as cli
from export.gate.parity import Failure, ParityError, ParityReport
from model.checkpoints.download import DownloadError
from model.checkpoints.loading import load
from tests.export_models import small_model, small_vitstr


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    save_file(small_model().state_dict(), path)
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"system_args": small_model().config.to_dict()}), encoding="utf-8")
    return path


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed on stderr, which must be one line."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("parseq-export: ")
    return captured.err


def test_weights_become_an_artifact(weights: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.onnx"
    arguments = ["--config", str(config), "--weights", str(weights), "--output", str(output)]
    assert cli.main([*arguments, "--decode", "nar", "--refine-iters", "0"]) == 0
    captured = capsys.readouterr()
    assert str(output) in captured.out
    assert "nar with 0 refinements" in captured.out
    assert "text equal to PyTorch's" in captured.out
    props = onnxruntime.InferenceSession(output).get_modelmeta().custom_metadata_map
    metadata = ArtifactMetadata.from_map(props)
    assert metadata.model_name == "mine"
    assert metadata.weights_sha256 == file_sha256(weights)
    # Once more: the file is there.
    assert cli.main(arguments) == 2
    assert "add --force" in error_of(capsys)


def test_the_defaults_are_the_models_own(weights: Path, config: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    arguments = ["--config", str(config), "--weights", str(weights), "--output", str(output), "--name", "other"]
    assert cli.main(arguments) == 0
    props = onnxruntime.InferenceSession(output).get_modelmeta().custom_metadata_map
    metadata = ArtifactMetadata.from_map(props)
    assert (metadata.model_name, metadata.decode_mode, metadata.refine_iters) == ("other", "ar", 1)
    assert not metadata.has_logits


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "parseq-huge"], "unknown model 'parseq-huge'"),
        (["--config", "none.json", "--weights", "none.pt"], "cannot read the config file none.json"),
        (["--model", "parseq-tiny", "--weights", "none.pt"], "there is no weights file none.pt"),
        (["--config", "none.json"], "give --weights FILE, or --model NAME"),
        ([], "give --weights FILE, or --model NAME"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*arguments, "--output", str(tmp_path / "out.onnx")]) == 2
    assert said in error_of(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "parseq"], "required: --output"),
        (["--output", "a.onnx", "--decode", "both"], "invalid choice: 'both'"),
        (["--output", "a.onnx", "--refine-iters", "-1"], "must be a whole number from 0"),
        (["--output", "a.onnx", "--refine-iters", "one"], "must be a whole number from 0, not 'one'"),
        (["--output", "a.onnx", "--precision", "int4"], "invalid choice: 'int4'"),
        (["--output", "a.onnx", "--model", "parseq", "--config", "c.json"], "not allowed with"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert said in error_of(capsys)


def test_an_empty_name(weights: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", str(config), "--weights", str(weights), "--output", str(tmp_path / "out.onnx"), "--name", ""]
    assert cli.main(arguments) == 2
    assert "--name is empty" in error_of(capsys)


def test_early_exit(weights: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.onnx"
    arguments = ["--config", str(config), "--weights", str(weights), "--output", str(output), "--early-exit"]
    assert cli.main([*arguments, "--decode", "nar"]) == 2
    assert "--early-exit is for --decode ar" in error_of(capsys)
    assert cli.main([*arguments, "--decode", "ar"]) == 0
    assert "fp32, early exit" in capsys.readouterr().out
    assert ArtifactMetadata.from_map(onnxruntime.InferenceSession(output).get_modelmeta().custom_metadata_map).early_exit


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--for", "cuda"], "ar with 1 refinements, fp16\n"),
        (["--for", "cuda", "--precision", "fp32"], "ar with 1 refinements, fp32\n"),
        (["--for", "cpu"], "ar with 1 refinements, fp32, early exit\n"),
        (["--for", "cpu", "--no-early-exit"], "ar with 1 refinements, fp32\n"),
        (["--for", "cpu", "--decode", "nar"], "nar with 1 refinements, fp32\n"),
    ],
)
def test_an_export_for_a_cpu_or_a_gpu(
    options: list[str], said: str, weights: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", str(config), "--weights", str(weights), "--output", str(tmp_path / "out.onnx")]
    status = cli.main([*arguments, *options])
    captured = capsys.readouterr()
    # Half precision and made-up weights: the gate may find that too little can be compared.
    if status == 0:
        assert said in captured.out
    else:
        assert "fp16" in said
        assert "refused" in captured.err


@pytest.mark.parametrize(("calibration", "precision"), [([], "fp32"), (["--calibration", "crops"], "int8")])
def test_integers_for_a_cpu_want_crops(calibration: list[str], precision: str) -> None:
    args = cli.build_parser().parse_args(["--for", "cpu", "--output", "a.onnx", *calibration])
    assert cli._precision_for(args) == precision


def test_what_suits_a_recogniser_without_steps() -> None:
    args = cli.build_parser().parse_args(["--for", "cpu", "--output", "a.onnx"])
    args.precision = "fp32"
    assert cli._reading_for(args, small_vitstr()) == {}
    assert cli._reading_for(args, small_model()) == {"early_exit": True}
    args.target = "cuda"
    assert cli._reading_for(args, small_model()) == {"early_exit": False}


def test_weights_of_another_network(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", "parseq-tiny", "--weights", str(weights), "--output", str(tmp_path / "out.onnx")]
    assert cli.main(arguments) == 2
    assert "charset" in error_of(capsys)


def test_a_damaged_file(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x10\0\0\0\0\0\0\0garbage")
    arguments = ["--config", str(config), "--weights", str(damaged), "--output", str(tmp_path / "out.onnx")]
    assert cli.main(arguments) == 2
    assert "damaged" in error_of(capsys)


def test_a_download_that_was_cut_short(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, cut = tmp_path / "whole.pt", tmp_path / "cut.pt"
    torch.save(small_model().state_dict(), whole)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert cli.main(["--config", str(config), "--weights", str(cut), "--output", str(tmp_path / "out.onnx")]) == 2
    assert "is damaged: fetch or save it again" in error_of(capsys)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"conv1.weight": torch.zeros(3)}, "belongs to another network"),
        (small_model(charset_train="abc").state_dict(), "was trained with 3 characters, the charset has 36"),
        (small_model(embed_dim=24).state_dict(), "belongs to a network of another size"),
        ({"epoch": 3}, "does not hold a state dict"),
        (
            {"state_dict": {f"model.{name}": value for name, value in small_model(enc_depth=1).state_dict().items()}},
            "only a part",
        ),
    ],
    ids=["another-model", "another-charset", "another-size", "no-weights", "another-checkpoint"],
)
def test_weights_that_do_not_fit(
    state: dict[str, object], said: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.pt"
    torch.save(state, path)
    assert cli.main(["--config", str(config), "--weights", str(path), "--output", str(tmp_path / "out.onnx")]) == 2
    assert said in error_of(capsys)
    assert not (tmp_path / "out.onnx").exists()


def test_a_folder_that_is_not_there_is_told_before_any_work(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "parseq", "--weights", str(weights), "--output", str(tmp_path / "none" / "out.onnx")]
    assert cli.main(arguments) == 2
    assert "does not exist" in error_of(capsys)


def test_no_network_to_download_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_name: str) -> Path:
        raise DownloadError("cannot download")

    monkeypatch.setattr(cli, "weights_path", fail)
    assert cli.main(["--model", "parseq", "--output", str(tmp_path / "out.onnx")]) == 2
    assert "cannot download" in error_of(capsys)


def test_a_graph_that_reads_otherwise_is_refused(
    weights: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = ParityReport(crops=32, batch_sizes=[1])
    report.failures = [Failure("blank white", 1, 3, "token 5 instead of 6")]

    def refuse(*_: object, **__: object) -> None:
        raise ParityError(report)

    monkeypatch.setattr(cli, "export_artifact", refuse)
    output = tmp_path / "out.onnx"
    assert cli.main(["--config", str(config), "--weights", str(weights), "--output", str(output)]) == 1
    said = error_of(capsys)
    assert "crop blank white, batch size 1, step 3: token 5 instead of 6" in said
    assert "nothing was written" in said
    assert not output.exists()


def test_help_lists_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    assert "parseq-nano" in capsys.readouterr().out


def test_every_option_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    options = [option for action in cli.build_parser()._actions for option in action.option_strings]
    assert len(options) > 8
    assert [option for option in options if f"`{option}" not in page and option not in ("-h", "--help")] == []


def test_weights_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = small_model()
    torch.save(
        {"hyper_parameters": {"config": network.config.to_dict()}, "state_dict": network.state_dict()}, tmp_path / "w.ckpt"
    )
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    assert cli.main(["weights", str(tmp_path / "w.ckpt"), "--output", str(whole)]) == 0
    assert cli.main(["weights", str(tmp_path / "w.ckpt"), "--output", str(half), "--half"]) == 0
    assert f"{len(network.config.charset_train)} characters" in capsys.readouterr().out
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    for path, tolerance in ((whole, 0.0), (half, 1e-3)):
        loaded = load(weights=path)
        assert loaded.config == network.config
        for name, value in network.state_dict().items():
            assert loaded.state_dict()[name].dtype == value.dtype
            torch.testing.assert_close(loaded.state_dict()[name], value, rtol=tolerance, atol=tolerance)
    assert cli.main(["weights", str(whole), "--output", str(half)]) == 2
    assert "add --force" in capsys.readouterr().err
    assert cli.main(["weights", str(whole), "--output", str(tmp_path / "w.pt")]) == 2
    assert "is not called .safetensors" in capsys.readouterr().err
    assert cli.main(["weights", str(tmp_path / "none.ckpt"), "--output", str(tmp_path / "x.safetensors")]) == 2
    assert "there is no weights file" in capsys.readouterr().err
