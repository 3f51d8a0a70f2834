"""Providers and devices, with stand-ins for ONNX Runtime's sessions: there is no GPU here."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from artifact.metadata import ArtifactMetadata
from artifact.session import open_cpu_session
from service.core.metrics import Metrics
from service.engine.cost import CostModel
from service.engine.engine import Engine
from service.engine.scheduler import EngineLimits
from service.engine.types import Outcome
from service.errors import StartupError
from service.sessions import devices, opening
from service.sessions.artifact import LoadedArtifact, load_artifact
from service.sessions.devices import DeviceSession, SpreadSession, count_cuda_devices, device_numbers
from service.sessions.providers import CHAINS, ORT_NAMES, SessionPlan, check_provider, preferred_provider, provider_chain
from service.sessions.session import open_session, session_options
from service.sessions.topology import bucket_of
from tests.fakes import PATIENCE_S, FakeSession, Mailbox, new_item, toy_settings
from tests.toy_artifact import HEIGHT, METADATA, STEPS, WIDTH, pixels_of, write_artifact

ALL = [ORT_NAMES[name] for name in ("tensorrt", "cuda", "openvino", "cpu")]
CROP = (HEIGHT, WIDTH, 3)


class FakeOrt:
    """Creates stand-ins for ONNX Runtime's sessions; `works` are the providers that do not fall back."""

    def __init__(self, *works: str) -> None:
        self.works = works
        self.asked: list[list[tuple[str, dict[str, str]]]] = []
        self.error: Exception | None = None

    def __call__(self, path: str, _options: Any, *, providers: list[tuple[str, dict[str, str]]], enable_fallback: int) -> Any:
        assert enable_fallback == 0
        self.asked.append(providers)
        if self.error is not None:
            raise self.error
        return FakeOrtSession([name for name, _ in providers if name in {ORT_NAMES[work] for work in (*self.works, "cpu")}])


class FakeOrtSession(FakeSession):
    """With the methods of `onnxruntime.InferenceSession` that the service calls."""

    def __init__(self, providers: list[str]) -> None:
        super().__init__()
        self.providers = providers

    def get_providers(self) -> list[str]:
        return self.providers

    def io_binding(self) -> FakeBinding:
        return FakeBinding()

    def run_with_iobinding(self, binding: FakeBinding) -> None:
        binding.outputs = self.run(binding.pixels.numpy())


class FakeBinding:
    def __init__(self) -> None:
        self.pixels: Any = None
        self.outputs: Any = None

    def bind_ortvalue_input(self, _name: str, value: Any) -> None:
        self.pixels = value

    def bind_output(self, _name: str, _device_type: str, _device: int) -> None:
        pass

    def copy_outputs_to_cpu(self) -> Any:
        return self.outputs


class FakeOrtValue:
    """Memory of a GPU: what is in it was copied into it."""

    def __init__(self, data: NDArray[np.uint8], device_type: str, device: int) -> None:
        assert device_type == "cuda"
        self.device = device
        self._data = data.copy()

    def update_inplace(self, data: NDArray[np.uint8]) -> None:
        assert data.shape == self._data.shape
        self._data = data.copy()

    def numpy(self) -> NDArray[np.uint8]:
        return self._data


def plan(provider: str, **values: Any) -> SessionPlan:
    return SessionPlan(Path("model.onnx"), METADATA, provider, **values)


@pytest.mark.parametrize("provider", ["cpu", "cuda", "tensorrt", "openvino"])
def test_a_named_provider_that_is_absent_is_refused_with_the_cure(provider: str) -> None:
    assert preferred_provider(provider, ALL) == provider
    without = [name for name in ALL if name != ORT_NAMES[provider]]
    with pytest.raises(StartupError, match=rf"PARSEQ_PROVIDER={provider}, but .*: install onnxruntime"):
        preferred_provider(provider, without)


def test_auto_takes_cuda_when_present_and_never_tensorrt() -> None:
    assert preferred_provider("auto", ALL) == "cuda"
    assert preferred_provider("auto", [ORT_NAMES["tensorrt"], ORT_NAMES["cpu"]]) == "cpu"
    assert preferred_provider("auto", [ORT_NAMES["openvino"], ORT_NAMES["cpu"]]) == "cpu"


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "openvino"])
def test_a_silent_fallback_is_noticed(provider: str) -> None:
    with pytest.raises(StartupError, match=f"PARSEQ_PROVIDER={provider}, but ONNX Runtime fell back to .*check"):
        open_session(plan(provider), FakeOrt())
    rest = [name for name in CHAINS[provider] if name != provider]
    with pytest.raises(StartupError, match="fell back"):
        open_session(plan(provider), FakeOrt(*rest))
    check_provider(provider, open_session(plan(provider), FakeOrt(provider)).get_providers())


def test_what_the_library_raises_is_a_start_up_error() -> None:
    create = FakeOrt("cuda")
    create.error = RuntimeError("CUDA failure 100: no CUDA-capable device\nand a long trace")
    with pytest.raises(StartupError, match=r"cannot be loaded on cuda \(CUDA failure 100: no CUDA-capable device\)"):
        open_session(plan("cuda"), create)


def test_cuda_is_asked_for_without_exhaustive_search_on_its_device() -> None:
    assert provider_chain(plan("cuda", device=3)) == [
        (ORT_NAMES["cuda"], {"device_id": "3", "cudnn_conv_algo_search": "HEURISTIC"}),
        (ORT_NAMES["cpu"], {}),
    ]


def test_tensorrt_gets_one_profile_for_all_batches_and_a_cache(tmp_path: Path) -> None:
    chain = provider_chain(plan("tensorrt", device=1, max_batch_size=48, cache_folder=tmp_path))
    assert [name for name, _ in chain] == [ORT_NAMES["tensorrt"], ORT_NAMES["cuda"], ORT_NAMES["cpu"]]
    assert chain[0][1] == {
        "device_id": "1",
        "trt_fp16_enable": "0",
        "trt_profile_min_shapes": "images:1x32x128x3",
        "trt_profile_opt_shapes": "images:48x32x128x3",
        "trt_profile_max_shapes": "images:48x32x128x3",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(tmp_path),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path),
    }
    assert "trt_engine_cache_enable" not in provider_chain(plan("tensorrt"))[0][1]


def test_tensorrt_computes_in_half_precision_what_was_exported_so() -> None:
    half = ArtifactMetadata.from_map({"parseq_artifact": METADATA.to_map()["parseq_artifact"].replace("fp32", "fp16")})
    [(_, options), *_] = provider_chain(SessionPlan(Path("model.onnx"), half, "tensorrt"))
    assert options["trt_fp16_enable"] == "1"


def test_openvino_gets_the_cores_of_all_lanes() -> None:
    [(name, options), _] = provider_chain(plan("openvino", lanes=3, intra_op_threads=2))
    assert name == ORT_NAMES["openvino"]
    assert options == {"device_type": "CPU", "num_of_threads": "6", "num_streams": "3"}


@pytest.mark.parametrize(
    ("provider", "lanes", "threads", "pool", "spins"),
    [("cpu", 4, 1, 1, False), ("cpu", 1, 4, 4, True), ("cpu", 2, 2, 3, False), ("cuda", 2, 1, 1, False)],
)
def test_all_lanes_together_get_their_threads_and_no_more(
    provider: str, lanes: int, threads: int, pool: int, spins: bool
) -> None:
    options = session_options(plan(provider, lanes=lanes, intra_op_threads=threads))
    assert options.intra_op_num_threads == pool
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == ("1" if spins else "0")


def test_devices_are_those_of_the_setting() -> None:
    assert device_numbers("0", lambda: 1) == (0,)
    assert device_numbers("2,0", lambda: 4) == (2, 0)
    assert device_numbers("all", lambda: 3) == (0, 1, 2)
    for setting, count in (("1", 1), ("0,3", 3), ("all", 0), ("0", 0)):
        with pytest.raises(StartupError, match=f"PARSEQ_DEVICES={setting}, but {count} GPUs are visible"):
            device_numbers(setting, lambda count=count: count)  # type: ignore[misc]


class FakeDriver:
    def __init__(self, init_error: int = 0, n_devices: int = 3) -> None:
        self.init_error, self.n_devices = init_error, n_devices

    def cuInit(self, _flags: int) -> int:  # noqa: N802 - the driver's name for it
        return self.init_error

    def cuDeviceGetCount(self, pointer: Any) -> int:  # noqa: N802 - the driver's name for it
        pointer._obj.value = self.n_devices
        return 0


def test_the_driver_counts_the_devices() -> None:
    def absent(name: str) -> Any:
        raise OSError(name)

    assert count_cuda_devices(lambda _name: FakeDriver()) == 3
    assert count_cuda_devices(lambda _name: FakeDriver(init_error=100)) == 0
    assert count_cuda_devices(absent) == 0


def test_a_batch_is_padded_to_the_next_bucket() -> None:
    assert [bucket_of(n, (1, 2, 4, 6)) for n in range(1, 7)] == [1, 2, 4, 4, 6, 6]


def test_padding_is_counted_where_there_is_any() -> None:
    gpu, cpu = Metrics(), Metrics()
    for observer in (gpu.observer("toy", (1, 2, 4, 8)), cpu.observer("toy")):
        for n_items in (1, 3, 5, 8):
            observer.batch_ran(n_items, 0.1, None)
    assert b'parseq_padding_crops_total{model="toy"} 4.0' in gpu.render()
    assert b'parseq_padding_crops_total{model="toy"} 0.0' in cpu.render()


def test_bound_memory_reads_as_an_ordinary_run_does(tmp_path: Path) -> None:
    """The real thing, with the CPU as the device."""
    real = open_cpu_session(write_artifact(tmp_path / "toy.onnx"))
    bound = DeviceSession(real, "cpu", 0, CROP, (1, 4))
    for texts in (["abcd"], ["a", "b", "c", "d"], ["xy", "z"], ["q"]):
        ids, confidences = bound.run(np.stack([pixels_of(text) for text in texts]))
        expected = real.run(["token_ids", "confidences"], {"images": np.stack([pixels_of(text) for text in texts])})
        assert ids.shape == confidences.shape == (len(texts), STEPS)
        assert (ids == expected[0]).all()
        assert (confidences == expected[1]).all()


def test_a_device_sees_only_the_sizes_of_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.onnxruntime.OrtValue, "ortvalue_from_numpy", FakeOrtValue)
    fake = FakeOrtSession([])
    bound = DeviceSession(fake, "cuda", 1, CROP, (1, 2, 4, 8))
    for n_crops in range(1, 9):
        ids, _ = bound.run(np.stack([pixels_of(str(index)) for index in range(n_crops)]))
        assert ids[:, 0].tolist() == list(range(1, n_crops + 1))
    assert fake.batches == [1, 2, 4, 4, 8, 8, 8, 8]


def test_whichever_slot_is_free_takes_the_next_batch() -> None:
    busy, free = FakeSession(), FakeSession()
    spread = SpreadSession([busy, free])
    busy.gate.clear()
    crops = np.stack([pixels_of("a")])
    thread = threading.Thread(target=spread.run, args=(crops,))
    thread.start()
    busy.wait_entered()
    for _ in range(3):
        spread.run(crops)
    assert (len(busy.batches), len(free.batches)) == (1, 3)
    busy.gate.set()
    thread.join(PATIENCE_S)
    spread.run(crops)
    spread.run(crops)
    assert (len(busy.batches), len(free.batches)) == (2, 4)


def test_a_slot_whose_run_failed_is_used_again() -> None:
    only = FakeSession()
    spread = SpreadSession([only])
    with pytest.raises(RuntimeError):
        spread.run(np.stack([pixels_of("a", poisoned=True)]))
    assert len(spread.run(np.stack([pixels_of("a")]))[0]) == 1


class GpuMachine:
    """A machine with GPUs, as far as this process can tell."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.artifact = write_artifact(folder / "toy.onnx")
        self.ort = FakeOrt("cuda", "tensorrt")
        self.n_devices = 2
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ALL)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
        monkeypatch.setattr(devices.onnxruntime.OrtValue, "ortvalue_from_numpy", FakeOrtValue)
        monkeypatch.setattr(opening, "count_cuda_devices", lambda: self.n_devices)
        monkeypatch.setattr(opening, "open_session", lambda plan: open_session(plan, self.ort))

    def start(self, **settings: Any) -> LoadedArtifact:
        return load_artifact(toy_settings(**{"artifact": self.artifact, "lanes": 0, **settings}))

    @property
    def devices_opened(self) -> list[str]:
        return [chain[0][1].get("device_id", "none") for chain in self.ort.asked]


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GpuMachine:
    return GpuMachine(tmp_path, monkeypatch)


def test_auto_runs_on_the_first_gpu(gpus: GpuMachine) -> None:
    artifact = gpus.start()
    assert (artifact.provider, gpus.devices_opened) == ("cuda", ["0"])
    assert (artifact.topology.lanes, artifact.topology.max_batch_size) == (1, 64)
    assert artifact.topology.warm_up_sizes == artifact.topology.buckets == (1, 2, 4, 8, 16, 32, 64)


@pytest.mark.parametrize(
    ("provider", "described", "said"),
    [
        (
            "cuda",
            {"precision": "int8", "early_exit": True},
            "toy.onnx is in int8, with an early exit: a GPU is quicker with fp16",
        ),
        ("cuda", {"precision": "fp32"}, "toy.onnx is in fp32: a GPU is quicker with fp16"),
        ("tensorrt", {"precision": "fp16", "early_exit": True}, "fp16, with an early exit: a GPU"),
        ("cuda", {"precision": "fp16"}, ""),
        ("cpu", {"precision": "int8", "early_exit": True}, ""),
    ],
)
def test_what_would_be_quicker_on_a_gpu_is_told(
    provider: str, described: dict[str, Any], said: str, gpus: GpuMachine, caplog: pytest.LogCaptureFixture
) -> None:
    settings = toy_settings(artifact=gpus.artifact, lanes=1, provider=provider)
    opening.open_engine_sessions(settings, replace(METADATA, **described), 1)
    assert ("parseq-export --for cuda" in caplog.text) is bool(said)
    assert said in caplog.text


def test_one_session_for_each_device_and_the_lanes_spread_over_them(gpus: GpuMachine) -> None:
    artifact = gpus.start(devices="all", lanes=4)
    assert gpus.devices_opened == ["0", "1"]
    assert isinstance(artifact.session, SpreadSession)
    assert [slot._device for slot in artifact.session.slots if isinstance(slot, DeviceSession)] == [0, 1, 0, 1]


def test_a_sweep_of_gpus_opens_each_once_and_chooses_lanes(gpus: GpuMachine) -> None:
    artifact = gpus.start(devices="0,1", tune=True, max_batch_size=4)
    assert gpus.devices_opened == ["0", "1"]
    assert artifact.topology.lanes in (2, 4)
    assert artifact.topology.buckets == (1, 2, 4)


def test_auto_falls_back_to_the_cpu_when_no_gpu_can_be_used(gpus: GpuMachine) -> None:
    gpus.ort.works = ()
    assert gpus.start().provider == "cpu"
    gpus.n_devices = 0
    artifact = gpus.start()
    assert artifact.provider == "cpu"
    assert artifact.topology.buckets == ()


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "openvino"])
def test_a_named_provider_never_falls_back(gpus: GpuMachine, provider: str) -> None:
    gpus.ort.works = ()
    with pytest.raises(StartupError, match="fell back"):
        gpus.start(provider=provider)


def test_tensorrt_keeps_its_engines_beside_the_artifact(gpus: GpuMachine) -> None:
    assert gpus.start(provider="tensorrt").provider == "tensorrt"
    folder = gpus.artifact.parent / "toy.onnx.tensorrt"
    assert folder.is_dir()
    assert gpus.ort.asked[0][0][1]["trt_engine_cache_path"] == str(folder)


def test_an_engine_of_several_devices_reads(gpus: GpuMachine) -> None:
    artifact, mailbox, metrics = gpus.start(devices="all"), Mailbox(), Metrics()
    engine = Engine(
        artifact.session,
        CostModel(4),
        EngineLimits(lanes=artifact.topology.lanes, max_queue_items=64),
        deliver=mailbox.deliver,
        observer=metrics.observer("toy", artifact.topology.buckets),
    )
    items = [new_item() for _ in range(30)]
    engine.start()
    engine.admit(items)
    for index, item in enumerate(items):
        engine.submit(item, pixels_of(str(index)))
    mailbox.wait_for(30)
    assert engine.stop(PATIENCE_S)
    for index, item in enumerate(items):
        assert item.outcome is Outcome.DONE
        assert item.token_ids is not None
        assert [value - 1 for value in item.token_ids if value] == [int(digit) for digit in str(index)]
