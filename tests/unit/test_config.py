from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from service.config import BUNDLED_ARTIFACT, Settings, doubts, env_name, load_settings
from service.errors import StartupError
from service.images.limits import ImageLimits
from service.process.cpu import cpu_budget

KNOWN = [env_name(name) for name in Settings.model_fields]
DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(env_name(name), raising=False)


def test_the_environment_is_read_and_the_command_line_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARSEQ_PORT", "9000")
    monkeypatch.setenv("PARSEQ_MAX_BATCH_SIZE", "3")
    monkeypatch.setenv("PARSEQ_HOST", "")
    settings = load_settings(port="9001")
    assert (settings.port, settings.max_batch_size, settings.host) == (9001, 3, "127.0.0.1")
    assert settings.artifact == BUNDLED_ARTIFACT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PARSEQ_PORT", "lots"),
        ("PARSEQ_LANES", "-1"),
        ("PARSEQ_PROVIDER", "tpu"),
        ("PARSEQ_DEVICES", "0,"),
        ("PARSEQ_IMAGE_FORMATS", "png,svg"),
        ("PARSEQ_IMAGE_FORMATS", "png,png"),
        ("PARSEQ_SEVERAL_FRAMES", "all"),
        ("PARSEQ_MAX_JSON_DEPTH", "1000"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StartupError, match=re.escape(f"{name}={value}: ")):
        load_settings()


@pytest.mark.parametrize("value", ["0,", "", " 0", "0, 1", "gpu0", "1000", "0\n", "\u0661"])
def test_devices_of_another_form_are_told_the_form(value: str) -> None:
    with pytest.raises(StartupError, match=r"(?s)^--devices=.*must be all, or numbers of GPUs with commas") as caught:
        load_settings(devices=value)
    assert "pattern" not in str(caught.value)


def test_formats_are_taken_from_their_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ImageLimits.of(load_settings()) == ImageLimits()
    monkeypatch.setenv("PARSEQ_IMAGE_FORMATS", "png,jpeg")
    monkeypatch.setenv("PARSEQ_SEVERAL_FRAMES", "refuse")
    limits = ImageLimits.of(load_settings())
    assert (limits.formats, limits.refuse_several_frames) == (("PNG", "JPEG"), True)


@pytest.mark.parametrize("value", ["all", "0", "0,1", "12,345"])
def test_devices(value: str) -> None:
    assert load_settings(devices=value).devices == value


def test_an_option_that_is_wrong_is_named_and_the_variable_beside_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARSEQ_PORT", "9000")
    with pytest.raises(StartupError, match=r"^--port=lots: ") as caught:
        load_settings(port="lots")
    assert "PARSEQ_PORT" not in str(caught.value)


def test_the_address_of_a_service_is_not_taken_for_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARSEQ_PORT", "tcp://10.0.0.1:8000")
    assert load_settings().port == 8000
    assert load_settings(port="9001").port == 9001
    [line] = doubts(os.environ, KNOWN)
    assert line.startswith("PARSEQ_PORT is ")
    assert "enableServiceLinks: false" in line
    monkeypatch.delenv("PARSEQ_PORT")
    monkeypatch.setenv("PARSEQ_GRPC_PORT", "tcp://10.0.0.1:8001")
    assert load_settings().grpc_port == 0
    assert "enableServiceLinks: false" in "".join(doubts(os.environ, KNOWN))


def test_grpc_has_a_port_of_its_own() -> None:
    assert load_settings(port="0", grpc_port="0").grpc_port == 0
    with pytest.raises(StartupError, match="PARSEQ_GRPC_PORT and PARSEQ_PORT are both 8000: gRPC needs a port of its own"):
        load_settings(grpc_port="8000")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("PARSEQ_MAX_BATCHSIZE", "PARSEQ_MAX_BATCH_SIZE"),
        ("parseq_lane", "PARSEQ_LANES"),
        ("PARSEQ_KEEPALIVE", "PARSEQ_KEEP_ALIVE_S"),
        ("PARSEQ_COLOUR_OF_THE_SKY", None),
    ],
)
def test_a_variable_that_is_no_setting_is_doubted(name: str, near: str | None) -> None:
    [line] = doubts({name: "secret", "PATH": "/bin", "PARSEQ_LANES": "1", "parseq_host": "x"}, KNOWN)
    assert line.startswith(f"{name} is not a setting")
    assert line.endswith(f"did you mean {near}?" if near else "is ignored")
    assert "secret" not in line


def test_what_kubernetes_adds_for_services_is_not_doubted() -> None:
    added = {"PARSEQ_CACHE": "/cache"}
    for service in ("PARSEQ", "PARSEQ_WEB"):
        added |= {
            f"{service}_SERVICE_HOST": "10.0.0.1",
            f"{service}_SERVICE_PORT": "8000",
            f"{service}_SERVICE_PORT_HTTP": "8000",
            f"{service}_PORT_8000_TCP": "tcp://10.0.0.1:8000",
            f"{service}_PORT_8000_TCP_PROTO": "tcp",
            f"{service}_PORT_8000_TCP_PORT": "8000",
            f"{service}_PORT_8000_TCP_ADDR": "10.0.0.1",
        }
    added["PARSEQ_WEB_PORT"] = "tcp://10.0.0.1:8000"
    assert list(doubts(added, KNOWN)) == []


def test_a_queue_smaller_than_a_request_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARSEQ_MAX_QUEUE_ITEMS", "4")
    with pytest.raises(StartupError, match="must not be less than PARSEQ_MAX_CROPS_PER_REQUEST"):
        load_settings()


def test_front_processes_serve_no_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARSEQ_HTTP_WORKERS", "2")
    assert load_settings().http_workers == 2
    monkeypatch.setenv("PARSEQ_GRPC_PORT", "9001")
    with pytest.raises(StartupError, match=r"PARSEQ_HTTP_WORKERS=2 and PARSEQ_GRPC_PORT=9001: .*set PARSEQ_HTTP_WORKERS to 1"):
        load_settings()


def test_every_setting_is_documented_with_its_variable_and_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| ([^|]*) \| `([^|]*)` \| ([^|]+) \|$", DOCS.read_text(), re.M)
    documented = {name: (variable, default, meaning) for name, variable, _unit, default, meaning in rows}
    expected = {}
    for name, field in Settings.model_fields.items():
        default = "bundled/parseq-mini.onnx" if name == "artifact" else str(field.default)
        expected[name] = (env_name(name), default, field.description)
    assert documented == expected
    assert len(rows) == len(expected)


def test_the_unit_in_a_name_is_the_unit_in_the_docs() -> None:
    units = {"ms": "milliseconds", "s": "seconds", "bytes": "bytes", "pixels": "pixels"}
    for name, unit in re.findall(r"^\| `(\w+)` \| `\w+` \| ([^|]*) \|", DOCS.read_text(), re.M):
        suffix = name.rsplit("_", 1)[-1]
        if suffix in units:
            assert unit == units[suffix], name


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_budget_is_the_containers(tmp_path: Path, files: dict[str, str], most: int | None) -> None:
    unlimited = cpu_budget([tmp_path])
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    assert unlimited >= 1
    assert cpu_budget([tmp_path]) == (unlimited if most is None else most)


def test_the_largest_body_must_fit_the_memory_for_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARSEQ_MAX_BODY_BYTES", "1000")
    for n_bytes, fits in (("0", True), ("2000", True), ("1999", False)):
        monkeypatch.setenv("PARSEQ_MAX_BODIES_BYTES", n_bytes)
        if fits:
            assert load_settings().max_bodies_bytes == int(n_bytes)
        else:
            with pytest.raises(StartupError, match="PARSEQ_MAX_BODIES_BYTES"):
                load_settings()
