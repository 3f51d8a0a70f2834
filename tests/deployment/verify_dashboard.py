"""Every expression of dashboard and rules, asked of a real Prometheus that scrapes the service under load: none may be empty.

    make verify-dashboard

The service runs the bundled model and gets requests of every kind, Prometheus the real configuration and rules with only the
target changed. Takes about a minute.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.serving.client import post
from benchmarks.serving.loads import ClosedLoop
from benchmarks.serving.server import running
from service.config import BUNDLED_ARTIFACT
from tests.deployment import monitoring, prometheus_process
from tests.deployment.monitoring import Query

SAMPLES = monitoring.ROOT / "docs" / "samples"
PATIENCE_S = 240
POLL_S = 5.0
CONNECTIONS, MEAN_PAUSE_S = 40, 0.05
SETTINGS = {"max_queue_wait_ms": "50", "max_batch_queue_wait_ms": "100", "max_queue_items": "128"}
"""A short patience, so that a load which leaves the client some CPU is refused in part."""
MUST_HAVE_HAPPENED = (
    'parseq_crops_total{model="parseq-mini",outcome="done"}',
    'parseq_crops_total{model="parseq-mini",outcome="expired"}',
    'parseq_crops_total{model="parseq-mini",outcome="failed"}',
    'parseq_crops_refused_total{model="parseq-mini",reason="predicted_wait"}',
    'parseq_request_duration_seconds_count{status="422"}',
    'parseq_request_duration_seconds_count{status="429"}',
    'parseq_request_duration_seconds_count{status="504"}',
)


@dataclass(frozen=True)
class Answer:
    """What Prometheus said to a query."""

    query: Query
    values: list[float]
    labels: list[dict[str, str]]

    @property
    def empty(self) -> bool:
        return not any(math.isfinite(value) for value in self.values)


def requests_of_every_kind() -> list[bytes]:
    """Ready-made bytes: single crops, a batch, images that are none, and deadlines that have passed at once."""
    samples = [path.read_bytes() for path in sorted(SAMPLES.glob("*.png"))]
    single = [post(sample, "image/png") for sample in samples]
    images = [{"content": base64.b64encode(sample).decode()} for sample in samples * 2]
    batch = post(json.dumps({"images": images}).encode(), "application/json")
    unreadable = post(b"no image", "image/png")
    expired = single[0].replace(b"\r\nHost:", b"\r\nX-Request-Timeout-Ms: 0.001\r\nHost:", 1)
    return [*single, batch, *single, unreadable, *single, expired]


@asynccontextmanager
async def under_load(address: tuple[str, int]) -> AsyncIterator[None]:
    load = ClosedLoop(address, requests_of_every_kind(), CONNECTIONS, mean_pause_s=MEAN_PAUSE_S)
    await load.start()
    try:
        yield
    finally:
        await load.stop()


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """The address of a Prometheus that scrapes `target` and nothing else."""
    config = yaml.safe_load((monitoring.PROMETHEUS / "prometheus.yml").read_text())
    for job in config["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(monitoring.RULES, folder)
    with prometheus_process.serving(folder) as url:
        yield url


def ask(client: httpx.Client, query: Query) -> Answer:
    response = client.get("/api/v1/query", params={"query": query.text}).json()
    if response["status"] != "success":
        raise SystemExit(f"{query.place}: {response['error']}\n{query.text}")
    result = response["data"]["result"]
    return Answer(query, [float(series["value"][1]) for series in result], [series["metric"] for series in result])


def all_queries() -> list[Query]:
    """Every expression of the dashboard, and every recording by its name: so that the rule itself was evaluated."""
    recordings = [Query(f"recording {name}", name) for name in sorted(monitoring.recorded())]
    return [*monitoring.dashboard_queries(), *recordings]


async def until_none_is_empty(url: str) -> list[Answer]:
    """Ask again and again, since rates need two scrapes; the last answers when patience is over."""
    end_s = time.monotonic() + PATIENCE_S
    with httpx.Client(base_url=url) as client:
        while True:
            await asyncio.sleep(POLL_S)
            with contextlib.suppress(httpx.TransportError):  # it is still starting
                answers = [await asyncio.to_thread(ask, client, query) for query in all_queries()]
                if time.monotonic() > end_s or not any(answer.empty for answer in answers if not answer.query.optional):
                    return answers
            if time.monotonic() > end_s:
                raise SystemExit("Prometheus does not answer")


def scrape(url: str) -> str:
    return httpx.get(f"{url}/metrics").text


def rule_complaints(url: str) -> list[str]:
    """Rules that Prometheus could not evaluate; all of them, alerts too, must have been tried."""
    groups = httpx.get(f"{url}/api/v1/rules").json()["data"]["groups"]
    loaded: list[dict[str, Any]] = [rule for group in groups for rule in group["rules"]]
    found = [f"rule {rule['name']}: {rule.get('lastError', rule['health'])}" for rule in loaded if rule["health"] != "ok"]
    return found if len(loaded) == len(monitoring.rules()) else [*found, f"{len(loaded)} rules were loaded"]


def legend_complaints(answers: list[Answer]) -> list[str]:
    """Legends that name a label which the result has not."""
    legends = {
        (f"panel {panel['title']!r}", monitoring.substitute(target["expr"], "1m")): target["legendFormat"]
        for panel in monitoring.panels()
        for target in panel["targets"]
    }
    return [
        f"{answer.query.place}: no label for the legend {legend}"
        for answer in answers
        for legend in [legends.get((answer.query.place, answer.query.text), "")]
        for label in re.findall(r"\{\{(\w+)\}\}", legend)
        if not answer.query.optional and not all(label in labels for labels in answer.labels)
    ]


def report(answers: list[Answer]) -> None:
    for answer in answers:
        finite = [value for value in answer.values if math.isfinite(value)]
        said = f"{len(answer.values):4d} series, the largest {max(finite):.4g}" if finite else "EMPTY"
        if answer.query.optional:
            said = "not asked for: no GPU here"
        print(f"{answer.query.place:<60} {said}")


async def verify(folder: Path) -> list[str]:
    settings = SETTINGS | {"tune": "false"}
    with running(BUNDLED_ARTIFACT, folder / "service.log", settings, "tests.deployment.impatient_server") as service:
        target = "{}:{}".format(*service.address)
        with prometheus(folder, target) as url:
            async with under_load(service.address):
                answers = await until_none_is_empty(url)
                found = await asyncio.to_thread(rule_complaints, url)
            exposition = await asyncio.to_thread(scrape, f"http://{target}")
            own = await asyncio.to_thread(scrape, url)
    report(answers)
    empty = [answer.query for answer in answers if answer.empty and not answer.query.optional]
    found += [f"{query.place} is empty: {query.text}" for query in empty]
    found += legend_complaints(answers)
    for sample in MUST_HAVE_HAPPENED:
        if not re.search(rf"^{re.escape(sample)} [^0]", exposition, re.M):
            found.append(f"{sample}: none of that kind happened")
    [resident] = re.findall(r"^process_resident_memory_bytes (\S+)$", own, re.M)
    asked = sum(not answer.query.optional for answer in answers)
    print(f"\n{asked} expressions, {len(answers) - asked} for a GPU not asked for, {len(monitoring.rules())} rules")
    print(f"Prometheus: {float(resident) / 2**20:.0f} MiB resident")
    return found


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        complaints = asyncio.run(verify(Path(folder)))
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    print("FAILED" if complaints else "none is empty")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
