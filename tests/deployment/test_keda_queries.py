"""What KEDA asks gets numbers from a real Prometheus that scrapes the running service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml

from service.config import BUNDLED_ARTIFACT
from tests.deployment import prometheus_process
from tests.deployment.manifests import build, of_kind
from tests.integration.server import PATIENCE_S, running

CROP = Path(__file__).parents[2] / "docs" / "samples" / "harbour.png"


def test_both_triggers_get_a_number(tmp_path: Path) -> None:
    (scaler,) = of_kind(build("overlays/keda"), "ScaledObject")
    queries = {trigger["name"]: trigger["metadata"]["query"] for trigger in scaler["spec"]["triggers"]}
    thresholds = {trigger["name"]: float(trigger["metadata"]["threshold"]) for trigger in scaler["spec"]["triggers"]}
    with (
        running(BUNDLED_ARTIFACT, tmp_path / "log", forked=True) as server,
        _prometheus(server.url, tmp_path) as prometheus,
    ):
        end_s = time.monotonic() + PATIENCE_S
        values: dict[str, float | None] = {}
        while time.monotonic() < end_s and not (values.get("busy-lanes") and values.get("queue-wait") is not None):
            for _ in range(20):
                crop = httpx.post(
                    f"{server.url}/v1/recognize", content=CROP.read_bytes(), headers={"content-type": "image/png"}
                )
                crop.raise_for_status()
            values = {name: _ask(prometheus, query) for name, query in queries.items()}
    assert values.keys() == {"queue-wait", "busy-lanes"}
    assert values["busy-lanes"]
    # Posted one after the other, they hardly wait and fill no second lane: one pod is enough.
    assert all(value is not None and value < thresholds[name] for name, value in values.items())


@contextmanager
def _prometheus(service_url: str, folder: Path) -> Iterator[str]:
    """One that scrapes the service every second, with the labels of a pod in the namespace of the manifests."""
    target = {"targets": [service_url.removeprefix("http://")], "labels": {"namespace": "parseq"}}
    scrape = {"job_name": "parseq-service", "scrape_interval": "1s", "scrape_timeout": "1s", "static_configs": [target]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [scrape]}))
    with prometheus_process.serving(folder) as url:
        yield url


def _ask(prometheus: str, query: str) -> float | None:
    """The one number that answers a query; `None` while there is no answer."""
    try:
        answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": query})
    except httpx.ConnectError:
        return None  # it is starting
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return None
    result = answer.raise_for_status().json()["data"]["result"]
    assert len(result) <= 1, result
    return float(result[0]["value"][1]) if result else None
