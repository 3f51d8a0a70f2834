"""`docker-compose.yml` as Compose itself reads it. No Docker engine was there to start it where this was written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from service.config import Settings
from tests.deployment import tools

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SERVICES = {
    "": {"service", "prometheus", "grafana"},
    "gateway": {"service", "prometheus", "grafana", "replica", "gateway"},
    "gpu": {"service", "prometheus", "grafana", "gpu"},
}
COPIES = {
    "service": f"parseq-service:{VERSION}-cpu",
    "replica": f"parseq-service:{VERSION}-cpu",
    "gpu": f"parseq-service:{VERSION}",
}
DRAIN_MARGIN_S = 5


def compose(*arguments: str, folder: Path = ROOT) -> str:
    """What it prints, without any variable of whoever runs this."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [*tools.command("docker-compose"), *arguments]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "level=warning" not in ran.stderr, ran.stderr
    return ran.stdout


def read(*profiles: str) -> dict[str, Any]:
    options = [option for profile in profiles for option in ("--profile", profile)]
    services: dict[str, Any] = json.loads(compose(*options, "config", "--format", "json"))["services"]
    return services


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """All of them."""
    return read("gateway", "gpu")


@pytest.mark.parametrize("profile", SERVICES)
def test_each_profile_is_valid_and_starts_what_it_should(profile: str) -> None:
    assert read(*filter(None, [profile])).keys() == SERVICES[profile]


def test_a_misspelt_field_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    (tmp_path / "docker-compose.yml").write_text(text.replace("stop_grace_period: 40s", "stop_grace_periode: 40s"))
    with pytest.raises(AssertionError, match="stop_grace_periode"):
        compose("config", "-q", folder=tmp_path)


def test_the_service_is_built_here_and_answers_on_port_8000_of_this_machine(services: dict[str, Any]) -> None:
    for name, image in COPIES.items():
        assert services[name]["image"] == image
        build = services[name]["build"]
        assert (Path(build["context"]) / build["dockerfile"]).is_file()
    [port] = services["service"]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "8000", Settings.model_fields["port"].default)


def test_nothing_is_published_to_the_network_unless_asked_for_and_no_port_twice(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    published = [port["published"] for port in ports]
    assert len(set(published)) == len(published) == 5


def test_images_of_others_are_pinned(services: dict[str, Any]) -> None:
    for name in services.keys() - COPIES:
        assert re.search(r":v?\d+\.\d+\.\d+", services[name]["image"]), name


def test_every_container_has_as_few_rights_as_it_can_do_with(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"], name
        assert int(service.get("mem_limit", 0)) or name == "gpu", name
        assert all(mount["type"] == "volume" or mount["read_only"] for mount in service.get("volumes", ())), name


def test_what_is_mounted_exists(services: dict[str, Any]) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", ()) if mount["type"] == "bind"]
    assert len(mounts) == 5
    for mount in mounts:
        assert Path(mount["source"]).exists(), mount


def test_settings_exist_and_leave_time_to_drain(services: dict[str, Any]) -> None:
    for name in COPIES:
        given = services[name]["environment"]
        settings = Settings.model_validate(
            {variable.removeprefix("PARSEQ_").lower(): value for variable, value in given.items()}
        )
        grace_s = float(services[name]["stop_grace_period"].removesuffix("s"))
        assert grace_s >= settings.drain_timeout_s + DRAIN_MARGIN_S, name


def test_health_is_known_before_anything_depends_on_it(services: dict[str, Any]) -> None:
    """The copies have the check of their images."""
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert other in COPIES, f"{name} waits for {other}"
    for path in ("Dockerfile", "docker/cpu.Dockerfile"):
        assert "\nHEALTHCHECK " in (ROOT / path).read_text()
