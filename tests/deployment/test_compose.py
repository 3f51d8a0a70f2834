"""`docker-compose.yml` as Compose itself reads it. No Docker engine was there to start it where this was written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.config import ENV_PREFIX, Settings
from tests.deployment import tools
from tests.deployment.pod_checks import OK, bodies_complaints, memory_complaints, status_of

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SERVICES = {
    "": {"service", "prometheus", "grafana"},
    "gateway": {"service", "prometheus", "grafana", "replica", "gateway"},
    "gpu": {"service", "prometheus", "grafana", "gpu"},
    "tracing": {"service", "prometheus", "grafana", "collector", "tempo"},
}
COPIES = {
    "service": f"parseq-service:{VERSION}-cpu",
    "replica": f"parseq-service:{VERSION}-cpu",
    "gpu": f"parseq-service:{VERSION}",
}
DRAIN_MARGIN_S = 5
TRACING_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER_ARG")
TRACING = ROOT / "docker" / "tracing"
GATEWAY = (ROOT / "docker" / "gateway" / "nginx.conf").read_text()
COMPOSE = (ROOT / "docker-compose.yml").read_text()
PROMETHEUS = ROOT / "docker" / "prometheus" / "prometheus.yml"


def settings_of(service: dict[str, Any]) -> Settings:
    given = {name: value for name, value in service["environment"].items() if name.startswith(ENV_PREFIX)}
    return Settings.model_validate({name.removeprefix(ENV_PREFIX).lower(): value for name, value in given.items()})


def writable(service: dict[str, Any]) -> set[str]:
    """The folders of a container that can be written."""
    mounted = {mount["target"] for mount in service.get("volumes", ()) if not mount.get("read_only")}
    return mounted | {place.partition(":")[0] for place in service.get("tmpfs", ())}


def compose(*arguments: str, folder: Path = ROOT, **variables: str) -> str:
    """What it prints, without any variable of whoever runs this."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | variables
    command = [*tools.command("docker-compose"), *arguments]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "level=warning" not in ran.stderr, ran.stderr
    return ran.stdout


def read(*profiles: str, **variables: str) -> dict[str, Any]:
    options = [option for profile in profiles for option in ("--profile", profile)]
    services: dict[str, Any] = json.loads(compose(*options, "config", "--format", "json", **variables))["services"]
    return services


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """All of them."""
    return read("gateway", "gpu", "tracing")


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
    assert len(mounts) == 7
    for mount in mounts:
        assert Path(mount["source"]).exists(), mount


def test_settings_exist_and_leave_time_to_drain(services: dict[str, Any]) -> None:
    for name in COPIES:
        settings = settings_of(services[name])
        others = {other for other in services[name]["environment"] if not other.startswith(ENV_PREFIX)}
        assert others == {"MALLOC_ARENA_MAX", *TRACING_VARIABLES}
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


def test_the_memory_is_what_was_measured_and_none_of_it_swap(services: dict[str, Any]) -> None:
    for name in ("service", "replica"):
        service = services[name]
        arenas = service["environment"]["MALLOC_ARENA_MAX"]
        assert list(memory_complaints(int(service["mem_limit"]), settings_of(service), arenas)) == []
        assert list(bodies_complaints(int(service["mem_limit"]), service["environment"])) == []
        assert service["memswap_limit"] == service["mem_limit"]


def test_the_ports_are_those_at_which_the_programs_listen(services: dict[str, Any]) -> None:
    [gateway] = re.findall(r"^\s*listen (\d+);", GATEWAY, re.M)
    listening = {name: settings_of(services[name]).port for name in ("service", "gpu")}
    listening |= {"gateway": int(gateway), "prometheus": 9090, "grafana": 3000}
    targets = {name: [port["target"] for port in service["ports"]] for name, service in services.items() if "ports" in service}
    assert targets == {name: [port] for name, port in listening.items()}


def test_the_documented_variables_do_what_they_say() -> None:
    variables = {"CPUS": "1", "BIND": "0.0.0.0", "SERVICE_PORT": "9000", "GPU_PORT": "9001", "SUBNET": "192.168.77"}
    page = (ROOT / "docs" / "monitoring.md").read_text()
    assert all(f"`{name}" in page for name in variables)
    services = read("gateway", "gpu", "tracing", **variables)
    assert {services[name]["cpus"] for name in COPIES} == {1}
    assert {port["host_ip"] for service in services.values() for port in service.get("ports", ())} == {"0.0.0.0"}
    assert services["service"]["ports"][0]["published"] == "9000"
    assert services["gpu"]["ports"][0]["published"] == "9001"
    assert services["gateway"]["networks"]["default"]["ipv4_address"] == "192.168.77.2"


def test_the_copies_believe_the_gateway_and_nobody_else(services: dict[str, Any]) -> None:
    address = services["gateway"]["networks"]["default"]["ipv4_address"]
    assert {settings_of(services[name]).trusted_proxies for name in COPIES} == {address}
    [network] = json.loads(compose("config", "--format", "json"))["networks"]["default"]["ipam"]["config"]
    assert ip_address(address) in ip_network(network["subnet"])
    # Else another container could have got it before.
    assert ip_address(address) not in ip_network(network["ip_range"])
    assert ip_network(network["ip_range"]).subnet_of(ip_network(network["subnet"]))  # type: ignore[arg-type]
    # By clients, not by what they say.
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in GATEWAY


def test_what_programs_write_has_a_place(services: dict[str, Any]) -> None:
    """All roots are read-only."""
    assert all("/tmp" in writable(services[name]) for name in COPIES)
    written = re.findall(r"^\s*(?:\w+_temp_path|pid) (/[^;]+);", GATEWAY, re.M)
    assert len(written) == 6
    assert all(str(Path(path).parent) in writable(services["gateway"]) for path in written)
    [data] = [option.partition("=")[2] for option in services["prometheus"]["command"] if "tsdb.path" in option]
    assert data in writable(services["prometheus"])
    assert {"/tmp", "/var/lib/grafana"} <= writable(services["grafana"])


def test_files_are_mounted_where_the_programs_look(services: dict[str, Any]) -> None:
    places = {
        mount["source"]: Path(mount["target"])
        for service in services.values()
        for mount in service.get("volumes", ())
        if mount["type"] == "bind"
    }
    assert places[str(ROOT / "docker" / "gateway" / "nginx.conf")] == Path("/etc/nginx/nginx.conf")
    assert f"--config.file={places[str(PROMETHEUS)]}" in services["prometheus"]["command"]
    for rules in yaml.safe_load(PROMETHEUS.read_text())["rule_files"]:
        assert places[str(PROMETHEUS.parent / rules)] == places[str(PROMETHEUS)].parent / rules


def test_prometheus_has_the_options_it_is_given(services: dict[str, Any]) -> None:
    ran = subprocess.run([*tools.command("prometheus"), "--help"], capture_output=True, text=True, timeout=60)
    known = set(re.findall(r"--[\w.-]+", ran.stdout + ran.stderr))
    given = {option.partition("=")[0] for option in services["prometheus"]["command"]}
    assert given <= known, given - known


def test_what_ends_is_started_again(services: dict[str, Any]) -> None:
    assert {service["restart"] for service in services.values()} == {"unless-stopped"}


def test_the_gpu_is_asked_for_as_docker_knows_it(services: dict[str, Any]) -> None:
    assert services["gpu"]["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    ]


def test_the_gateway_starts_after_both_copies_and_asks_them_how_they_are(services: dict[str, Any]) -> None:
    gateway = services["gateway"]
    assert {name: each["condition"] for name, each in gateway["depends_on"].items()} == dict.fromkeys(
        ("service", "replica"), "service_healthy"
    )
    assert gateway["user"] == "101:101"
    [url] = [word for word in gateway["healthcheck"]["test"] if "://" in word]
    address, _, path = url.removeprefix("http://").partition("/")
    assert address == f"127.0.0.1:{gateway['ports'][0]['target']}"
    assert status_of(f"/{path}") == OK


def test_grafana_shows_and_nobody_logs_in(services: dict[str, Any]) -> None:
    wanted = {
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "GF_AUTH_BASIC_ENABLED": "false",
        "GF_AUTH_DISABLE_LOGIN_FORM": "true",
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
    }
    assert wanted.items() <= services["grafana"]["environment"].items()


def test_nothing_is_traced_unless_asked_for() -> None:
    page = (ROOT / "docs" / "tracing.md").read_text()
    assert all(f"`{name}" in page for name in TRACING_VARIABLES)
    given = dict(zip(TRACING_VARIABLES, ("http://collector:4318", "0.5"), strict=True))
    for name in COPIES:
        assert [read("gateway", "gpu")[name]["environment"][each] for each in TRACING_VARIABLES] == ["", ""]
        assert given.items() <= read("gateway", "gpu", **given)[name]["environment"].items()


def test_traces_go_from_the_service_by_the_collector_to_where_grafana_looks(services: dict[str, Any]) -> None:
    collector, tempo = (yaml.safe_load((TRACING / f"{name}.yml").read_text()) for name in ("collector", "tempo"))
    [documented] = set(re.findall(r"OTEL_EXPORTER_OTLP_ENDPOINT=http://(\S+) docker compose", COMPOSE))
    host, _, port = documented.partition(":")
    assert host in services
    pipeline = collector["service"]["pipelines"]["traces"]
    for part in ("receivers", "processors", "exporters"):
        assert collector[part].keys() == set(pipeline[part]), part
    assert collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(f":{port}")
    listening = tempo["distributor"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    assert collector["exporters"]["otlphttp"]["endpoint"] == f"http://tempo:{listening.rpartition(':')[2]}"
    sources = ROOT / "docker" / "grafana" / "provisioning" / "datasources"
    [source] = yaml.safe_load((sources / "tempo.yml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("tempo", f"http://tempo:{tempo['server']['http_listen_port']}")
    [prometheus] = yaml.safe_load((sources / "prometheus.yml").read_text())["datasources"]
    assert prometheus["jsonData"]["exemplarTraceIdDestinations"] == [{"name": "trace_id", "datasourceUid": source["uid"]}]


def test_traces_are_written_where_that_can_be_and_tempo_does_not_call_home(services: dict[str, Any]) -> None:
    tempo = yaml.safe_load((TRACING / "tempo.yml").read_text())
    [folder] = writable(services["tempo"]) - {"/tmp"}
    assert tempo["storage"]["trace"]["backend"] == "local"
    for part in ("wal", "local"):
        assert str(Path(tempo["storage"]["trace"][part]["path"]).parent) == folder
    assert tempo["usage_report"] == {"reporting_enabled": False}
    for name, file in (("collector", "collector.yml"), ("tempo", "tempo.yml")):
        [mount] = services[name]["volumes"]
        assert Path(mount["source"]) == TRACING / file
        assert services[name]["command"][0].lstrip("-") == f"config{'.file' if name == 'tempo' else ''}={mount['target']}"


def test_prometheus_keeps_the_traces_that_latencies_point_to(services: dict[str, Any]) -> None:
    assert "--enable-feature=exemplar-storage" in services["prometheus"]["command"]
