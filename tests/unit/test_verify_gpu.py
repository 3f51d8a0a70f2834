"""The check of a GPU, without one: its table, its stages with stand-ins, every way in which a row fails, and the bundle."""

from __future__ import annotations

import argparse
import ctypes
import io
import json
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact.session import open_cpu_session
from service.errors import StartupError
from tests.gpu import bundle, driver, pace, serving, stages, texts, verify, write_material
from tests.gpu.material import Demand, Expected, Graph, Material, MaterialError, read_material
from tests.gpu.serving import Load, MeasurementError
from tests.gpu.stage import Opened, Stage
from tests.gpu.stages import Budget
from tests.gpu.table import Row, RowFile, exit_code, markdown, write
from tests.toy_artifact import HEIGHT, WIDTH, pixels_of, write_artifact

DEMAND = Demand(floor=0.995, tie_margin=0.05, confidence=0.005, min_decided=0.2)
WORDS = ("ab", "c", "abc", "b")


@pytest.fixture
def material(tmp_path: Path) -> Material:
    """Two precisions of a toy model that is meant for GPUs, and one that is not."""
    folder = tmp_path / "material"
    folder.mkdir()
    pixels = np.stack([pixels_of(word) for word in WORDS])
    for name in ("toy-fp32.onnx", "toy-fp16.onnx", "toy.onnx"):
        artifact = write_artifact(folder / name)
    ids, confidences = open_cpu_session(artifact).run(None, {"images": pixels})[:2]
    margins = np.ones(len(WORDS), np.float32)
    size = np.array([HEIGHT, WIDTH])
    np.savez(folder / "toy.npz", own=pixels[:1], size=size, token_ids=ids, confidences=confidences, margins=margins)
    np.savez(folder / f"drawn-{HEIGHT}x{WIDTH}.npz", pixels=pixels[1:])
    graphs = (
        Graph("toy", "toy", "fp32", "toy-fp32.onnx"),
        Graph("toy", "toy", "fp16", "toy-fp16.onnx", pace="parseq"),
        Graph("toy", "toy", "int8", "toy.onnx", gpu=False),
    )
    made = Material(folder, graphs, DEMAND, "four drawn crops")
    made.write()
    return made


def stage_of(material: Material, name: str, provider: str = "cpu", seconds: float = 60.0) -> Stage:
    folder = material.folder.parent
    return Stage(name, material, provider, RowFile(folder / f"{name}.jsonl"), time.monotonic() + seconds, folder)


def arguments_of(material: Material, *more: str) -> list[str]:
    return [str(material.folder), "--output", str(material.folder.parent / "out"), *more]


class Driver:
    """Stands in for libcuda."""

    def __init__(self, names: Sequence[str], status: int = 0) -> None:
        self.names, self.status = names, status

    def cuInit(self, _flags: int) -> int:  # noqa: N802 - its name
        return self.status

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.names)
        return 0

    def cuDeviceGetName(self, name: Any, _length: int, number: int) -> int:  # noqa: N802
        name.value = self.names[number].encode()
        return 0


def test_devices_are_named() -> None:
    assert driver.device_names(lambda _library: Driver(["H1", "H2"])) == ["H1", "H2"]
    for shown in (Driver([]), Driver(["H1"], status=100)):
        with pytest.raises(driver.NoGpuError, match="shows 0 devices"):
            driver.device_names(lambda _library, shown=shown: shown)


def test_without_a_gpu_there_is_one_line_and_status_2(
    material: Material, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_library: str) -> Any:
        raise OSError("cannot open shared object file")

    def no_devices() -> list[str]:
        return driver.device_names(missing)

    monkeypatch.setattr(verify, "device_names", no_devices)
    assert verify.main(arguments_of(material)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("verify-gpu: there is no GPU here")
    assert captured.err.count("\n") == 1
    assert not (material.folder.parent / "out").exists()


def test_material_that_is_not_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MaterialError, match="write it with"):
        read_material(tmp_path)
    assert verify.main([str(tmp_path), "--stand-in"]) == 2
    assert "write_material" in capsys.readouterr().err


def test_the_table(tmp_path: Path) -> None:
    rows = [Row("texts", "a", "ok", "1 | 2\n3"), Row("pace", "parseq", "skipped", "no time")]
    assert exit_code(rows) == 0
    assert exit_code([*rows, Row("texts", "b", "FAILED", "wrong")]) == 1
    lines = markdown(rows).splitlines()
    assert lines[0].startswith("| check | of     | result  | found |")
    assert "1 / 2 3" in lines[2]
    assert "| pace  | parseq |" in write(rows, "# all", tmp_path)
    assert json.loads((tmp_path / "verify-gpu.json").read_text())["rows"][1]["found"] == "no time"
    file = RowFile(tmp_path / "rows")
    for row in rows:
        file.add(row)
    with (tmp_path / "rows").open("a") as broken:
        broken.write('{"check": "te')  # it was stopped there
    assert file.read() == rows


def readings(material: Material) -> Expected:
    return material.expected("toy")


def test_equal_readings(material: Material) -> None:
    expected = readings(material)
    found = texts.compare(expected.token_ids, expected.confidences, expected, DEMAND)
    assert (found.crops, found.equal, found.near_ties, found.problem) == (4, 4, 0, "")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda ids, _conf, _margins: ids.__setitem__((0, 0), ids[0, 0] + 1), "1 of 4 texts differ"),
        (lambda _ids, conf, _margins: conf.__setitem__((2, -1), np.nan), "confidences on 1 crops are no numbers"),
        (lambda _ids, conf, _margins: conf.__setitem__((slice(None), 0), conf[:, 0] - 0.1), "confidences differ"),
        (lambda ids, _conf, margins: (ids.__setitem__((0, 0), 3), margins.__setitem__(0, 0.01)), ""),
        (lambda ids, _conf, margins: (ids.__setitem__((slice(None), 0), 9), margins.fill(0.01)), "no text is equal"),
    ],
    ids=["a token", "NaN", "confidences", "a near tie", "only near ties, and all wrong"],
)
def test_wrong_readings(material: Material, change: Any, problem: str) -> None:
    expected = readings(material)
    expected = replace(expected, margins=expected.margins.copy())
    ids, confidences = expected.token_ids.copy(), expected.confidences.copy()
    change(ids, confidences, expected.margins)
    assert texts.compare(ids, confidences, expected, DEMAND).problem == problem


def test_what_follows_the_end_of_a_text_may_differ(material: Material) -> None:
    expected = readings(material)
    ids = expected.token_ids.copy()
    ids[1, 2:] = 7  # "c" and its end token come before
    assert texts.compare(ids, expected.confidences, expected, DEMAND).equal == 4


def test_few_clear_crops_are_told(material: Material) -> None:
    expected = replace(readings(material), margins=np.zeros(4, np.float32))
    assert "says little" in str(texts.compare(expected.token_ids, expected.confidences, expected, DEMAND))


def test_texts_of_each_graph_for_gpus(material: Material) -> None:
    stage = stage_of(material, "texts")
    texts.run(stage)
    assert [(row.of, row.outcome) for row in stage.rows.read()] == [("toy, fp32", "ok"), ("toy, fp16", "ok")]


def test_texts_that_fail(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider is missing, a run breaks, the shape is wrong, the texts are wrong, the time is over: a row each."""

    class Wrong:
        def __init__(self, session: Any) -> None:
            self.session = session

        def run(self, crops: Any) -> Any:
            ids, confidences = self.session.run(crops)
            return np.roll(ids, 1, 0), confidences

    class Broken:
        def run(self, crops: Any) -> Any:
            raise RuntimeError("CUDA error 700")

    class Narrow:
        def run(self, crops: Any) -> Any:
            return np.zeros((len(crops), 1), np.int64), np.ones((len(crops), 1), np.float32)

    right = texts.open_on

    def found(session: Any) -> list[Row]:
        monkeypatch.setattr(texts, "open_on", session)
        stage = stage_of(material, f"texts-{time.monotonic_ns()}")
        texts.run(stage)
        rows = stage.rows.read()
        assert {row.outcome for row in rows} == {"FAILED"}
        assert exit_code(rows) == 1
        return rows

    def missing(*_: Any) -> Opened:
        raise StartupError("PARSEQ_PROVIDER=cuda, but ONNX Runtime fell back")

    assert "texts differ" in found(lambda *how: Opened(Wrong(right(*how).session), 0))[0].found
    assert "CUDA error 700" in found(lambda *_: Opened(Broken(), 0))[0].found  # type: ignore[arg-type]
    assert "of shape (4, 1)" in found(lambda *_: Opened(Narrow(), 0))[0].found  # type: ignore[arg-type]
    assert "fell back" in found(missing)[0].found
    late = stage_of(material, "late", seconds=0)
    texts.run(late)
    assert {row.found for row in late.rows.read()} == {"not compared: the time of this stage was over"}


def test_a_fault_of_half_precision_itself_is_not_the_gpus(material: Material) -> None:
    graphs = (replace(material.graphs[0], fault="on a CPU, too, texts differ"),)
    stage = stage_of(replace(material, graphs=graphs), "texts")
    texts.run(stage)
    assert [row.outcome for row in stage.rows.read()] == ["measured"]


def test_a_provider_that_is_not_installed(material: Material) -> None:
    stage = stage_of(material, "providers", provider="cuda")
    stages.providers(stage)
    rows = {row.of: row for row in stage.rows.read()}
    assert rows["session"].outcome == "FAILED"
    assert "PARSEQ_PROVIDER=cuda" in rows["session"].found
    assert exit_code(list(rows.values())) == 1


def test_placement_of_a_real_session(material: Material) -> None:
    stage = stage_of(material, "placement")
    stages.places(stage)
    assert all("STAND-IN" in row.found and row.outcome == "measured" for row in stage.rows.read())


@pytest.mark.parametrize(
    ("of", "on_cpu", "outcome"), [("toy, fp32", 0, "ok"), ("toy, fp32", 2, "FAILED"), ("toy, int8", 2, "measured")]
)
def test_placement_on_a_gpu(of: str, on_cpu: int, outcome: str, material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    log = "[x] Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 1\nVerifyEachNodeIsAssignedToAnEp]  MatMul (a)\n"
    log += "[x] Node(s) placed on [CPUExecutionProvider]. Number of nodes: 2\n"
    log += "VerifyEachNodeIsAssignedToAnEp]  Pow (a)\n" * on_cpu
    monkeypatch.setattr(stages, "placement", lambda *_: stages_read(log))
    stage = stage_of(material, "placement", provider="cuda")
    stages.places(stage)
    assert {row.of: row.outcome for row in stage.rows.read()}[of] == outcome


def stages_read(log: str) -> Any:
    from tests.gpu.placement import read_log

    return read_log(log)


def test_placement_that_takes_too_long(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any) -> Any:
        raise subprocess.TimeoutExpired("python", 1)

    monkeypatch.setattr(stages, "placement", slow)
    stage = stage_of(material, "placement")
    stages.places(stage)
    rows = stage.rows.read()
    assert [row.outcome for row in rows] == ["FAILED", "FAILED", "skipped"]
    assert all("timed out" in row.found for row in rows)


def test_pace(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SLICE_S", 0.01)
    stage = stage_of(material, "pace")
    pace.run(stage)
    (toy, tensorrt) = stage.rows.read()
    assert (toy.of, toy.outcome) == ("parseq, fp16, cpu", "measured")
    assert list(toy.figures["batches"]) == ["1", "8", "32", "64", "128"]
    assert tensorrt.outcome == "skipped"
    rate = serving.pace_of([toy], material.graphs[1])
    assert rate == max(at["crops_per_s"] for size, at in toy.figures["batches"].items() if size != "128")
    late = stage_of(material, "late", seconds=1)
    pace.run(late)
    assert late.rows.read()[0].outcome == "skipped"


def test_tensorrt_whose_libraries_are_missing_is_skipped(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Any:
        raise StartupError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(pace, "open_on", missing)
    monkeypatch.setattr(pace.onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    stage = stage_of(material, "pace", provider="cuda", seconds=200)
    pace.run(stage)
    assert [(row.of, row.outcome) for row in stage.rows.read()] == [
        ("parseq, fp16, cuda", "FAILED"),
        ("parseq, fp16, tensorrt", "skipped"),
    ]


def row_of(crops_per_s: float = 1000, **values: float | None) -> dict[str, Any]:
    usual = {"ratio_best": 0.5, "p50_ms": 1.0, "p99_ms": 2.0, "cpu_ms_per_request": 1.0, "client_cpu": 0.01, "foreign_cpu": 0.0}
    return {"crops_per_s": crops_per_s, "refused": 0.0, "failed": 0.0, **usual, **values}


@pytest.mark.parametrize(
    ("row", "alone", "limit"),
    [
        (row_of(), 1050.0, "the GPU"),
        (row_of(ratio_best=0.95), None, "the GPU"),
        (row_of(4000, cpu_ms_per_request=3.9), 9000.0, "the 16 cores"),
        (row_of(client_cpu=1 / 16), 9000.0, "the client, which is one process"),
        (row_of(), 9000.0, "the one process that does HTTP"),
    ],
)
def test_what_limited_the_service(row: dict[str, Any], alone: float | None, limit: str) -> None:
    assert Load(1, 16, row, alone).limit == limit


def test_front_processes_are_named_where_there_are_several() -> None:
    assert Load(2, 16, row_of(), 9000.0).limit == "the front processes"


@pytest.mark.parametrize(
    ("rates", "tried"), [((1000, 2000, 3900, 5000, 5050), [1, 2, 4, 8, 16]), ((1000, 1050), [1, 2]), ((0,), [1])]
)
def test_front_processes_are_doubled_while_it_pays(
    rates: Sequence[float], tried: list[int], material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def measured(_stage: Stage, _artifact: Path, workers: int) -> dict[str, Any]:
        asked.append(workers)
        return row_of(rates[len(asked) - 1])

    monkeypatch.setattr(serving, "cpu_budget", lambda: 64)
    monkeypatch.setattr(serving, "measure", measured)
    stage = stage_of(material, "serving", seconds=1000)
    serving.run(stage)
    assert asked == tried
    assert [row.outcome for row in stage.rows.read()] == ["FAILED" if rates == (0,) else "measured"] * len(tried)


def test_a_service_that_does_not_start_is_a_row(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('the service did not become ready')"]

    monkeypatch.setattr(serving, "command", failing)
    stage = stage_of(material, "serving")
    with pytest.raises(MeasurementError, match="ended with 1: the service did not become ready"):
        serving.measure(stage, material.folder, 1)
    serving.run(stage)
    assert stage.rows.read()[0].outcome == "FAILED"
    late = stage_of(material, "late", seconds=1)
    serving.run(late)
    assert late.rows.read()[0].outcome == "skipped"


def test_a_benchmark_that_takes_too_long_is_interrupted(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "command", lambda *_: [sys.executable, "-c", "import time; time.sleep(60)"])
    with pytest.raises(MeasurementError, match="time of this stage was over"):
        serving.measure(stage_of(material, "serving", seconds=serving.ENDING_S), material.folder, 1)


def run_script(tmp_path: Path, script: str, seconds: float) -> list[Row]:
    rows = RowFile(tmp_path / "rows.jsonl")
    verify.run_stage("texts", [sys.executable, "-c", script], rows, seconds, tmp_path / "log")
    return rows.read()


def test_a_stage_that_breaks_or_hangs_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "ENDING_S", 0.2)
    assert run_script(tmp_path, "pass", 20) == []
    (broken,) = run_script(tmp_path, "raise RuntimeError('no memory left')", 20)
    assert broken.outcome == "FAILED"
    assert "RuntimeError: no memory left" in broken.found
    (_, hung) = run_script(tmp_path, "import signal, time; signal.signal(2, lambda *_: 0)\nwhile True: time.sleep(1)", 0.5)
    assert hung.found.startswith("stopped after its 0 s")


def test_the_time_is_shared_out(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    def ran(name: str, _arguments: Any, _rows: RowFile, seconds: float, _log: Path) -> None:
        given[name] = round(seconds)

    monkeypatch.setattr(verify, "run_stage", ran)
    args = argparse.Namespace(stage=["a", "b", "c"], output=material.folder, provider="cpu", material=material.folder)
    plan = {name: Budget(lambda _stage: None, 20) for name in "abc"}
    rows = verify.verify(args, plan, total_s=50)
    assert given == {"a": 20, "b": 40, "c": 45}  # nothing was used, and an end must be left
    assert rows == []
    assert verify.verify(args, plan, total_s=6)[0].found == "not begun: the time was over"
    assert sum(budget.seconds for budget in stages.STAGES.values()) < stages.TOTAL_S == 480


@pytest.mark.slow
def test_the_whole_check_with_a_stand_in(material: Material, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main(arguments_of(material, "--stand-in", "--stage", "providers", "texts")) == 0
    out = capsys.readouterr().out
    assert "STAND-IN: the CPU provider ran in place of CUDA" in out
    assert "4 of 4 texts equal" in out
    found = json.loads((material.folder.parent / "out" / "verify-gpu.json").read_text())
    assert found["exit_code"] == 0
    assert "STAND-IN" in found["heading"]


def test_versions_of_libraries() -> None:
    class Library:
        def cudaRuntimeGetVersion(self, number: Any) -> int:  # noqa: N802
            number._obj.value = 13000
            return 0

        def __init__(self) -> None:
            self.cudnnGetVersion = ctypes.CFUNCTYPE(ctypes.c_size_t)(lambda: 91201)

    def missing(_library: str) -> Any:
        raise OSError("none")

    assert driver.library_version("libcudart.so.13", "cudaRuntimeGetVersion", lambda _name: Library()) == 13000
    assert driver.library_version("libcudnn.so.9", "cudnnGetVersion", lambda _name: Library()) == 91201
    assert driver.library_version("libcudnn.so.9", "cudnnGetVersion", missing) is None


def test_requirements_of_the_machine() -> None:
    constraints = "numpy==2.4.6\nonnxruntime==1.31.1\n"
    wanted = bundle.requirements(constraints, with_nvidia=True)
    assert wanted[-1] == "onnxruntime-gpu[cuda,cudnn]==1.31.1"
    assert any(line.startswith("fastapi") for line in wanted)
    assert not any("torch" in line for line in wanted)
    assert bundle.requirements(constraints, with_nvidia=False)[-1] == "onnxruntime-gpu==1.31.1"


@pytest.fixture
def made(material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of small pieces, of a tree of two files and one wheel that has the check's own module in it."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "some-1.0-py3-none-any.whl").write_bytes(b"wheel" * 10_000)
    monkeypatch.setattr(bundle, "tracked_files", lambda: [bundle.ROOT / "LICENSE", bundle.ROOT / "tests/gpu/verify.py"])
    output = tmp_path / "bundle"
    arguments = [str(material.folder), "--output", str(output), "--wheels", str(wheels), "--piece-mb", "0.02"]
    assert bundle.main([*arguments, "--requirement", "some"]) == 0
    return output


def test_pieces_join_again(made: Path, material: Material) -> None:
    pieces = sorted((made / "pieces").iterdir())
    assert len(pieces) > 3
    assert {piece.stat().st_size for piece in pieces[:-1]} == {20_000}
    subprocess.run(["sha256sum", "--quiet", "--check", "pieces.sha256"], cwd=made, check=True)
    with tarfile.open(fileobj=io.BytesIO(b"".join(piece.read_bytes() for piece in pieces))) as archive:
        names = archive.getnames()
        assert {"requirements.txt", "project/LICENSE", "material/toy.npz", "wheels/some-1.0-py3-none-any.whl"} <= set(names)
        file = archive.extractfile("material/toy-fp32.onnx")
        assert file is not None
        assert file.read() == material.path(material.graphs[0]).read_bytes()


def test_a_damaged_or_missing_piece_is_named(made: Path) -> None:
    python = f"PYTHON={sys.executable}"
    piece = made / "pieces" / "piece.001"
    content = piece.read_bytes()
    piece.write_bytes(b"x" + content[1:])
    for _ in range(2):
        done = subprocess.run(["env", python, "sh", "run.sh"], cwd=made, capture_output=True, text=True)
        assert done.returncode == 2
        assert "piece.001" in done.stdout + done.stderr
        assert "damaged or missing" in done.stderr
        piece.unlink(missing_ok=True)
    assert not (made / "unpacked").exists()


def test_another_python_is_refused(made: Path) -> None:
    script = (made / "run.sh").read_text()
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (made / "run.sh").write_text(script.replace(f'"{version}"', '"3.99"'))
    done = subprocess.run(["env", f"PYTHON={sys.executable}", "sh", "run.sh"], cwd=made, capture_output=True, text=True)
    assert done.returncode == 2
    assert "the wheels are for Python" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--python", "three"], "is no version such as 3.12"),
        (["--piece-mb", "0"], "must be more than 0"),
        (["--wheels", "nowhere"], "nowhere has no wheels"),
    ],
)
def test_a_bundle_that_cannot_be(options: list[str], said: str, material: Material, capsys: pytest.CaptureFixture[str]) -> None:
    assert bundle.main([str(material.folder), "--output", str(material.folder.parent / "b"), *options]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_a_bundle_without_material(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bundle.main([str(tmp_path), "--output", str(tmp_path / "b")]) == 2
    assert "write_material" in capsys.readouterr().err


def tiny_wheel(folder: Path) -> None:
    """A package `some` that says what it is, as a wheel."""
    about = "some-1.0.dist-info"
    files = {
        "some.py": "WHAT = 'installed from the bundle'\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: some\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    with zipfile.ZipFile(folder / "some-1.0-py3-none-any.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.mark.slow
def test_the_script_of_a_bundle_installs_and_runs(material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels, tree = tmp_path / "wheels", tmp_path / "tree"
    wheels.mkdir()
    tiny_wheel(wheels)
    check = tree / "tests" / "gpu" / "verify.py"
    check.parent.mkdir(parents=True)
    check.write_text("import os, some, sys\nprint(some.WHAT, sys.argv[1:], os.path.exists('../material/contents.json'))\n")
    (tree / "constraints.txt").write_text("")
    monkeypatch.setattr(bundle, "ROOT", tree)
    monkeypatch.setattr(bundle, "tracked_files", lambda: [check])
    output = tmp_path / "bundle"
    arguments = [str(material.folder), "--output", str(output), "--wheels", str(wheels), "--piece-mb", "0.01"]
    assert bundle.main([*arguments, "--requirement", "some"]) == 0
    for unpacks in (True, False):
        command = ["env", "-u", "PYTHONPATH", f"PYTHON={sys.executable}", "sh", "run.sh", "--stage", "texts"]
        done = subprocess.run(command, cwd=output, capture_output=True, text=True, check=True)
        assert "installed from the bundle ['../material', '--output'," in done.stdout
        assert done.stdout.rstrip().endswith("'--stage', 'texts'] True")
        assert ("unpacking" in done.stderr) is unpacks


def test_material_is_made_of_recorded_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_material, "pictures", lambda count: ([], f"{count} simple drawn crops"))
    folder = tmp_path / "material"
    for _ in range(2):  # the second time over the first
        assert write_material.main([str(folder), "--crops", "6", "--network", "parseq-p16"]) == 0
    made = read_material(folder)
    assert [graph.file for graph in made.graphs] == ["parseq-p16-fp32.onnx", "parseq-p16-fp16.onnx"]
    assert made.crops == "6 simple drawn crops and those of the recorded outputs"
    assert len(made.expected("parseq-p16").pixels) == 4 + 6
    stage = stage_of(made, "texts")
    texts.run(stage)
    assert {row.outcome for row in stage.rows.read()} == {"ok"}


def test_a_graph_that_reads_otherwise_on_this_cpu_is_no_material(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = write_material.read_on_a_cpu

    def wrong(artifact: Path, pixels: Any) -> Any:
        ids, confidences = right(artifact, pixels)
        return np.roll(ids, 1, 1), confidences

    monkeypatch.setattr(write_material, "pictures", lambda _count: ([], "crops"))
    monkeypatch.setattr(write_material, "read_on_a_cpu", wrong)
    assert write_material.main([str(tmp_path), "--crops", "4", "--network", "parseq-p16"]) == 1
    assert "does not read as PyTorch does" in capsys.readouterr().err
    with pytest.raises(MaterialError):
        read_material(tmp_path)
