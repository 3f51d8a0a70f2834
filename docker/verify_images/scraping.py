"""A real Prometheus that scrapes a container."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from container import Container, free_port
from steps import ROOT, WORK, check, wait_until

sys.path.insert(0, str(ROOT))
from tests.deployment import tools


def scrape(container: Container, crops: int) -> None:
    """See that Prometheus finds the container up and ready, and counts what it has read.

    Args:
        container: A service.
        crops: How many it has read.
    """
    with _prometheus(container.url.removeprefix("http://")) as url:

        def value(expression: str) -> float | None:
            result = _ask(url, expression)
            return float(result[0]["value"][1]) if result else None

        wait_until("Prometheus scrapes", lambda: value("up") == 1)
        check(value("parseq_ready") == 1, "a Prometheus scrapes it: up and ready")
        read = 'sum(parseq_crops_total{outcome="done"})'
        check(value(read) == crops, f"{read} is {crops}", value(read))
        (model,) = _ask(url, "parseq_model_info")
        labels = {name: model["metric"][name] for name in ("name", "provider", "lanes")}
        check(labels["lanes"] == "1", f"it plans for its CPU limit, not for the host's cores: {labels}")


@contextmanager
def _prometheus(target: str) -> Iterator[str]:
    port = free_port()
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        config = Path(folder) / "prometheus.yml"
        scraped = {"job_name": "parseq-service", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
        config.write_text(json.dumps({"scrape_configs": [scraped]}))  # JSON is YAML
        options = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
        with (WORK / "prometheus.log").open("w") as log:
            process = subprocess.Popen([*tools.command("prometheus"), *options], stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until("Prometheus is ready", lambda: _is_ready(url), lambda: process.poll() is None)
            yield url
        finally:
            process.terminate()
            process.wait(60)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _ask(url: str, expression: str) -> list[dict[str, Any]]:
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=30) as answer:
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return result
