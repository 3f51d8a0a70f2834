"""Prometheus' files and the dashboard, checked by Prometheus' own tool and against a scrape of the running service."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest
import yaml

from service.config import Settings
from tests.deployment import monitoring, tools, traffic
from tests.deployment.monitoring import Query, Series
from tests.integration.server import running
from tests.toy_artifact import write_artifact

SEVERITIES = {"critical", "warning"}
UNITS = {"bytes", "decmbytes", "ops", "percent", "percentunit", "reqps", "s", "short", "watt"}
"""Of Grafana's, those in use: it takes any text, and shows one that it does not know behind the number."""
KINDS = {"heatmap", "stat", "table", "timeseries"}


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Series:
    folder = tmp_path_factory.mktemp("scrape")
    artifact, module = write_artifact(folder / "toy.onnx"), "tests.deployment.impatient_server"
    with running(artifact, folder / "log", module=module) as server:
        traffic.of_each_kind(server.url)
        return monitoring.series_of(httpx.get(f"{server.url}/metrics").text)


def promtool(*arguments: str | Path) -> str:
    ran = subprocess.run([*tools.command("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


# -- Prometheus ----------------------------------------------------------------------------------------------------------


def test_promtool_accepts_configuration_and_rules() -> None:
    """It warns of rules that are there twice, and exits with 0 all the same unless told to be strict."""
    promtool("check", "config", "--lint=all", "--lint-fatal", monitoring.PROMETHEUS / "prometheus.yml")
    promtool("check", "rules", "--lint=all", "--lint-fatal", monitoring.RULES)


def test_the_rules_pass_their_tests() -> None:
    promtool("test", "rules", monitoring.PROMETHEUS / "rules_test.yml")


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    cases: dict[str, set[bool]] = {}
    for test in yaml.safe_load((monitoring.PROMETHEUS / "rules_test.yml").read_text())["tests"]:
        for case in test.get("alert_rule_test", ()):
            cases.setdefault(case["alertname"], set()).add(bool(case.get("exp_alerts")))
    # A case in which one of several replicas fires shows that the others do not.
    of_one_replica = {"ParseqRestarting", "ParseqInferenceFails"}
    for alert in monitoring.alerts():
        name = alert["alert"]
        assert cases.get(name) == ({True} if name in of_one_replica else {True, False}), name


def test_prometheus_itself_says_what_the_service_exposes_is_well_named(tmp_path: Path) -> None:
    with running(write_artifact(tmp_path / "toy.onnx"), tmp_path / "log", forked=True) as server:
        exposition = httpx.get(f"{server.url}/metrics").content
    ran = subprocess.run([*tools.command("promtool"), "check", "metrics"], input=exposition, capture_output=True, timeout=60)
    assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()


def test_every_alert_says_how_bad_it_is_and_where_it_is_explained() -> None:
    for alert in monitoring.alerts():
        assert alert["labels"]["severity"] in SEVERITIES
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    sections = re.split(r"^## ", monitoring.RUNBOOK.read_text(), flags=re.M)[1:]
    titles = [section.partition("\n")[0] for section in sections]
    assert titles == [alert["alert"] for alert in monitoring.alerts()]
    for title, section in zip(titles, sections, strict=True):
        for part in ("Means", "Impact", "Look", "Cure"):
            assert f"\n**{part}.** " in section, f"{title}: {part}"


def test_every_threshold_in_the_runbook_is_that_of_the_rule() -> None:
    """Each section quotes the condition as it stands in the rules."""
    runbook = monitoring.RUNBOOK.read_text()
    for alert in monitoring.alerts():
        section = runbook.partition(f"## {alert['alert']}\n")[2].partition("\n## ")[0]
        condition = " ".join(alert["expr"].split())
        assert f"`{condition}`" in section, alert["alert"]
        assert f", for {alert['for']}" in section if "for" in alert else ", for " not in section.partition("\n\n")[0]


def test_the_name_of_a_recording_tells_its_window_and_quantile() -> None:
    for rule in monitoring.rules():
        if "record" in rule:
            assert set(re.findall(r"\[(\w+)\]", rule["expr"])) == set(re.findall(r"\d+[mh]$", rule["record"])), rule["record"]
            assert quantiles(rule["expr"]) == percentiles(rule["record"]), rule["record"]


def quantiles(expression: str) -> set[float]:
    return {float(q) for q in re.findall(r"histogram_quantile\(([\d.]+)", expression)}


def percentiles(text: str) -> set[float]:
    return {int(n) / 100 for n in re.findall(r"(?<![a-z])p(\d\d)(?!\d)", text)}


# -- Every expression ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [*monitoring.rule_queries(), *monitoring.dashboard_queries()], ids=lambda query: query.place)
def test_all_that_is_asked_for_is_in_a_scrape(query: Query, scrape: Series) -> None:
    assert monitoring.complaints(query, scrape, monitoring.recorded()) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("parseq_redy", "the service has no metric parseq_redy"),
        ('parseq_crops_total{result="done"}', "no series is like"),
        ('parseq_crops_total{outcome="finished"}', "no series is like"),
        ('rate(parseq_recognition_duration_seconds_bucket{le="3.0"}[5m])', "no series is like"),
        ("sum by (reason) (rate(parseq_crops_total[5m]))", "no series in it has the label reason"),
        ("parseq_ready / on (job, pod) parseq_queue_depth_crops", "no series in it has the label pod"),
        ('up{job="parseq"} == 0', "there is no job parseq"),
        ('up{status="200"}', "up has no label status"),
        ('histogram_quantile(0.9, sum by (le) (rate(parseq_crops_total{outcome="done"}[5m])))', "has the label le"),
    ],
)
def test_what_is_not_there_is_found(text: str, complaint: str, scrape: Series) -> None:
    [told] = monitoring.complaints(Query("test", text), scrape, set())
    assert complaint in told


# -- Grafana ---------------------------------------------------------------------------------------------------------------


def test_the_dashboard_is_what_its_source_writes(tmp_path: Path) -> None:
    written = tmp_path / "dashboard.json"
    subprocess.run([sys.executable, monitoring.GRAFANA / "build_dashboard.py", written], check=True, timeout=60)
    assert written.read_text() == monitoring.DASHBOARD.read_text(), "run docker/grafana/build_dashboard.py"


def test_every_metric_has_a_panel(scrape: Series) -> None:
    asked = " ".join(query.text for query in [*monitoring.dashboard_queries(), *monitoring.rule_queries()])
    own = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in scrape if name.startswith("parseq_")}
    assert {name for name in own if name not in asked} == set()


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    panels = monitoring.panels()
    assert not [title for title, n in Counter(panel["title"] for panel in panels).items() if n > 1]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["type"] in KINDS
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["targets"], panel["title"]


def test_legends_and_titles_tell_what_the_query_gives(scrape: Series) -> None:
    for panel in monitoring.panels():
        for target in panel["targets"]:
            query = Query(panel["title"], monitoring.substitute(target["expr"], "1m"))
            if not query.optional:
                labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                assert labels <= monitoring.output_labels(query, scrape), panel["title"]
            assert quantiles(query.text) == (percentiles(target["legendFormat"]) or percentiles(panel["title"])), panel["title"]


def test_panels_with_quantiles_show_traced_requests() -> None:
    marked = {panel["title"] for panel in monitoring.panels() for target in panel["targets"] if target.get("exemplar")}
    assert marked == {"End to end", "p99 by stage"}


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in monitoring.panels():
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells


def test_alerts_named_in_panels_exist_with_their_thresholds() -> None:
    alerts = {alert["alert"]: alert["expr"] for alert in monitoring.alerts()}
    named = 0
    for panel in monitoring.panels():
        for name, number, unit in re.findall(r"Alert: (\w+), above ([\d.]+) (%|s)\.", panel["description"]):
            threshold = float(number) / (100 if unit == "%" else 1)
            assert float(alerts[name].rsplit(">", 1)[1]) == threshold, panel["title"]
            named += 1
    assert named == sum("Alert:" in panel["description"] for panel in monitoring.panels()) > 0


def test_grafana_is_told_where_prometheus_and_the_dashboard_are() -> None:
    compose = yaml.safe_load((monitoring.ROOT / "docker-compose.yml").read_text())
    [source] = yaml.safe_load((monitoring.GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((monitoring.GRAFANA / "provisioning/dashboards/parseq.yml").read_text())["providers"]
    scrape_interval = yaml.safe_load((monitoring.PROMETHEUS / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert (source["type"], source["access"], source["isDefault"]) == ("prometheus", "proxy", True)
    assert provider["type"] == "file"
    assert source["url"] == "http://prometheus:9090"
    assert compose["services"]["prometheus"]["ports"][0].endswith(":9090")
    assert source["jsonData"]["timeInterval"] == scrape_interval
    mounts = dict(mount.rsplit(":", 2)[:2] for mount in compose["services"]["grafana"]["volumes"])
    assert mounts["./docker/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert mounts["./docker/grafana/dashboards"] == provider["options"]["path"]
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{monitoring.DASHBOARD.name}"


def test_prometheus_asks_where_the_service_listens() -> None:
    [job] = yaml.safe_load((monitoring.PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    [discovery] = job["dns_sd_configs"]
    assert discovery["type"] == "A"
    assert discovery["port"] == Settings.model_fields["port"].default
    assert job.get("metrics_path", "/metrics") == "/metrics"
    compose = yaml.safe_load((monitoring.ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("service", "replica", "gpu"):
        assert compose[name]["networks"]["default"]["aliases"] == discovery["names"], name
