"""How much memory the service takes, idle and under each kind of load that is heavy on it: what a container's limit must cover.

    .venv/bin/python -m benchmarks.memory
    MALLOC_ARENA_MAX=2 taskset -c 0 .venv/bin/python -m benchmarks.memory --artifact model.onnx

Each step has a server of its own, so that one's peak is not another's. Linux only: the figures are the kernel's (`/proc`).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from benchmarks.serving.client import OK, Address, post
from benchmarks.serving.loads import ClosedLoop
from benchmarks.serving.server import running
from service.config import BUNDLED_ARTIFACT, Settings, load_settings

SAMPLES = sorted((Path(__file__).parents[1] / "docs" / "samples").glob("*.png"))
CONNECTIONS = 32


def _crops(_limits: Settings) -> list[bytes]:
    return [post(path.read_bytes(), "image/png") for path in SAMPLES]


def _full_requests(limits: Settings) -> list[bytes]:
    """As many crops as one request may have."""
    contents = [base64.b64encode(path.read_bytes()).decode() for path in SAMPLES]
    images = [{"content": contents[index % len(contents)]} for index in range(limits.max_crops_per_request)]
    return [post(json.dumps({"images": images}).encode(), "application/json")]


def _largest_bodies(limits: Settings) -> list[bytes]:
    """A picture that is stored as it is, just within the limit of the body."""
    side = int(((limits.max_body_bytes - 1024) / 3) ** 0.5) // 4 * 4
    return [post(_encoded(Image.new("RGB", (side, side), "white"), "BMP"), "image/bmp")]


def _largest_pictures(limits: Settings) -> list[bytes]:
    """As many pixels as a picture may have, with transparency, in a small file."""
    side = int(limits.max_image_pixels**0.5)
    return [post(_encoded(Image.new("RGBA", (side, side), (255, 255, 255, 128)), "PNG"), "image/png")]


def _largest_pages(limits: Settings) -> list[bytes]:
    """As many pixels as a page may have, with transparency, and a region that has a smaller copy of it made."""
    side = int(limits.max_page_pixels**0.5)
    file = _encoded(Image.new("RGBA", (side, side), (255, 255, 255, 128)), "PNG")
    regions = [{"box": [0, 0, side, side]}] * 10
    body = {"image": base64.b64encode(file).decode(), "regions": regions}
    return [post(json.dumps(body).encode(), "application/json", "/v1/regions")]


def _encoded(image: Image.Image, image_format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format)
    return file.getvalue()


STEPS: Mapping[str, Callable[[Settings], Sequence[bytes]]] = {
    "none": lambda _limits: [],
    "a crop each": _crops,
    "requests with as many crops as allowed": _full_requests,
    "the largest bodies allowed": _largest_bodies,
    "the largest pictures allowed": _largest_pictures,
    "the largest pages allowed": _largest_pages,
}


def main() -> None:
    """Print a table: memory at the end of each step and at its worst."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifact", type=Path, default=BUNDLED_ARTIFACT)
    parser.add_argument("--seconds", type=float, default=8.0, help="of load in each step (default: %(default)s)")
    parser.add_argument("--setting", nargs="*", default=[], metavar="NAME=VALUE", help="of the service, docs/configuration.md")
    options = parser.parse_args()
    settings = dict(setting.split("=", 1) for setting in options.setting)
    limits = load_settings(**settings)
    print(f"{CONNECTIONS} connections for {options.seconds:g} s\n")
    print("| load | MiB at the end | MiB at most | answered with 200 | otherwise |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, make_requests in STEPS.items():
            with running(options.artifact, Path(folder, "log"), settings) as server:
                statuses = asyncio.run(_load(server.address, make_requests(limits), options.seconds))
                now, most = _memory_mib(server.session_id)
            good = statuses.count(OK)
            print(f"| {name} | {now:.0f} | {most:.0f} | {good} | {len(statuses) - good} |", flush=True)


async def _load(address: Address, requests: Sequence[bytes], seconds: float) -> list[int]:
    if not requests:
        return []
    load = ClosedLoop(address, requests, CONNECTIONS)
    await load.start()
    await asyncio.sleep(seconds)
    await load.stop()
    return [answer.status for answer in load.traffic.answers]


def _memory_mib(process_id: int) -> tuple[float, float]:
    """Resident memory of a process now and at most so far."""
    status = Path(f"/proc/{process_id}/status").read_text(encoding="utf-8")
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", status, re.M))
    return int(found["VmRSS"]) / 1024, int(found["VmHWM"]) / 1024


if __name__ == "__main__":
    main()
