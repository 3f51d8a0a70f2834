"""Reading where a session would run its nodes."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest

from tests.gpu import placement as gpu_placement
from tests.gpu.placement import CPU, CUDA, Placement, PlacementError, build_stand_in, main, read_log

ALL = f"[V:onnxruntime:, session_state.cc:1261] All nodes placed on [{CUDA}]. Number of nodes: 12\n"
MIXED = f"""
[V:onnxruntime:, session_state.cc:1268 VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on [{CUDA}]. Number of nodes: 2
[V:onnxruntime:, session_state.cc:1270 VerifyEachNodeIsAssignedToAnEp]   MatMul (encoder/MatMul)
[V:onnxruntime:, session_state.cc:1270 VerifyEachNodeIsAssignedToAnEp]   MemcpyToHost (Memcpy)
[V:onnxruntime:, session_state.cc:1268 VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on [{CPU}]. Number of nodes: 2
[V:onnxruntime:, session_state.cc:1270 VerifyEachNodeIsAssignedToAnEp]   Pow (encoder/Pow)
[V:onnxruntime:, session_state.cc:1270 VerifyEachNodeIsAssignedToAnEp]   Gather (encoder/Gather)
"""


def test_everything_on_the_gpu() -> None:
    placement = read_log(ALL)
    assert not placement.on_cpu
    assert placement.copies == 0
    assert "12 nodes on CUDAExecutionProvider" in str(placement)


def test_what_is_left_on_the_cpu_is_told_but_not_the_arithmetic_of_shapes() -> None:
    placement = read_log(MIXED)
    assert dict(placement.on_cpu) == {"Pow": 1}
    assert placement.copies == 1
    assert "computing on the CPU: Pow 1; copies: 1" in str(placement)


def test_a_session_that_fell_back_is_no_answer() -> None:
    with pytest.raises(PlacementError, match=r"did not use CUDAExecutionProvider.*libcublas missing"):
        read_log("libcublas missing\n")
    with pytest.raises(PlacementError, match="did not use"):
        read_log(ALL.replace(CUDA, CPU))


@pytest.mark.parametrize(("log", "status"), [(ALL, 0), (MIXED, 1), ("nothing", 2)])
def test_exit_status(log: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def found(_path: Path, _library: Path) -> Placement:
        return read_log(log)

    monkeypatch.setattr(gpu_placement, "placement", found)
    monkeypatch.setattr(gpu_placement, "build_stand_in", lambda folder: folder / "libcuda.so.1")
    assert main(["a.onnx"]) == status
    captured = capsys.readouterr()
    assert captured.out.startswith({0: "ok  a.onnx", 1: "BAD a.onnx", 2: ""}[status])


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(PlacementError, match="gcc is needed"):
        build_stand_in(tmp_path)


def test_the_stand_in_names_the_calls_that_open_a_session() -> None:
    for call in ("cudaGetDeviceCount", "cudaMalloc", "cudaMemcpyAsync", "cublasCreate_v2", "cudnnCreate", "cudaSetDevice"):
        assert call in gpu_placement.STAND_IN


def test_the_stand_in_answers_as_a_device(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        with pytest.raises(PlacementError):
            build_stand_in(tmp_path)
        return
    library = ctypes.CDLL(str(build_stand_in(tmp_path)))
    value = ctypes.c_int(-1)
    assert library.cudaGetDeviceCount(ctypes.byref(value)) == 0
    assert value.value == 1
    assert library.cudaDeviceGetAttribute(ctypes.byref(value), 75, 0) == 0
    assert value.value == 9
