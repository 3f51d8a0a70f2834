"""What each protocol costs: CPU time of the server for a request with one crop, over loopback, the protocols in turns.

python -m benchmarks.protocols [--artifact FILE] [--connections 1 16] [--slices 5] [--slice-s 3] [--setting NAME=VALUE ...]

The crop comes as a raw body (v1), as a binary tensor over HTTP (v2), and as a raw tensor over gRPC. The model computes nothing
unless one is given: what is left is decoding and the protocol. Figures are medians of the slices; the ratio is to v1 in the
same turn. Needs the extra `grpc`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import grpc.aio
import uvloop
from tqdm import tqdm

from artifact.metadata import ArtifactMetadata
from artifact.session import open_cpu_session
from benchmarks.serve import WORK_FOLDER
from benchmarks.serving.arithmetic import cpu_use, ratio, read_cpu
from benchmarks.serving.artifacts import crop_files, null_artifact
from benchmarks.serving.client import OK, Address, post
from benchmarks.serving.loads import ClosedLoop
from benchmarks.serving.server import Server, running
from service.config import BUNDLED_ARTIFACT
from service.grpc.messages import CLASSES, SERVICE
from service.process.cpu import cpu_budget

WARM_UP_S = 0.5
FOREIGN = 0.1
"""Of all cores: so much work of others makes the figures doubtful."""


class Load(Protocol):
    """Clients that each wait for their answer."""

    async def start(self) -> None:
        """Begin to ask."""
        ...

    async def stop(self) -> None:
        """Ask no more, and wait for what is in flight."""
        ...

    def n_answered(self) -> int:
        """Requests that were read so far; an error ends the benchmark."""
        ...


class HttpLoad:
    """Over HTTP."""

    def __init__(self, address: Address, requests: Sequence[bytes], connections: int) -> None:
        self._loop = ClosedLoop(address, requests, connections)
        self.start, self.stop = self._loop.start, self._loop.stop

    def n_answered(self) -> int:
        """As `Load` has it."""
        failed = [answer.status for answer in self._loop.traffic.answers if answer.status != OK]
        if failed:
            raise SystemExit(f"a request was answered with {failed[0]}: see the server's log in {WORK_FOLDER}")
        return len(self._loop.traffic.answers)


class GrpcLoad:
    """Over gRPC, each client with a connection of its own."""

    def __init__(self, target: str, messages: Sequence[bytes], connections: int) -> None:
        self._target, self._n_channels = target, connections
        self._channels: list[Any] = []
        self._messages = messages
        self._tasks: list[asyncio.Task[None]] = []
        self._n_answered = 0
        self._stopped = False

    async def start(self) -> None:
        """As `Load` has it."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(self._target, options) for _ in range(self._n_channels)]
        self._tasks = [asyncio.create_task(self._ask(index, channel)) for index, channel in enumerate(self._channels)]

    async def _ask(self, index: int, channel: Any) -> None:
        call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        for message in itertools.islice(itertools.cycle(self._messages), index % len(self._messages), None):
            if self._stopped:
                return
            await call(message)
            self._n_answered += 1

    async def stop(self) -> None:
        """As `Load` has it."""
        self._stopped = True
        await asyncio.gather(*self._tasks, return_exceptions=True)  # `n_answered` tells them
        for channel in self._channels:
            await channel.close()

    def n_answered(self) -> int:
        """As `Load` has it."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise SystemExit(f"a call failed: {error}")
        return self._n_answered


def load_of(protocol: str, server: Server, grpc_port: int, model: str, connections: int) -> Load:
    """One crop a request, in one of `PROTOCOLS`."""
    files = [content for content, _ in crop_files()]
    if protocol == "gRPC raw":
        return GrpcLoad(f"127.0.0.1:{grpc_port}", [_message(file, model) for file in files], connections)
    if protocol == "v2 binary":
        requests = [_binary(file, model) for file in files]
    else:
        requests = [post(content, media_type) for content, media_type in crop_files()]
    return HttpLoad(server.address, requests, connections)


PROTOCOLS = ("v1 raw", "v2 binary", "gRPC raw")


def _packed(file: bytes) -> bytes:
    return len(file).to_bytes(4, "little") + file


def _binary(file: bytes, model: str) -> bytes:
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(_packed(file))}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    media_type = f"application/octet-stream\r\nInference-Header-Content-Length: {len(head)}"
    return post(head + _packed(file), media_type, f"/v2/models/{model}/infer")


def _message(file: bytes, model: str) -> bytes:
    request = CLASSES["ModelInferRequest"](model_name=model, raw_input_contents=[_packed(file)])
    request.inputs.add(name="images", datatype="BYTES", shape=[1])
    message: bytes = request.SerializeToString()
    return message


def metadata_of(artifact: Path) -> ArtifactMetadata:
    """What a file says of its model."""
    return ArtifactMetadata.from_map(open_cpu_session(artifact).get_modelmeta().custom_metadata_map)


async def cpu_ms(load: Load, server: Server, seconds: float) -> tuple[float, float]:
    """CPU time of the server for a request under a load, and the share of all cores that others used meanwhile."""
    await load.start()
    try:
        await asyncio.sleep(min(WARM_UP_S, seconds))
        n_before, before = load.n_answered(), read_cpu(server.session_id)
        await asyncio.sleep(seconds)
        n_after, after = load.n_answered(), read_cpu(server.session_id)
    finally:
        await load.stop()
    use = cpu_use(before, after, cpu_budget())
    return 1000 * use.server_s / max(1, n_after - n_before), use.foreign_share


async def measure(args: argparse.Namespace) -> None:
    """Print a line for each number of connections and protocol."""
    WORK_FOLDER.mkdir(parents=True, exist_ok=True)
    artifact = args.artifact or null_artifact(metadata_of(BUNDLED_ARTIFACT), WORK_FOLDER)
    with socket.create_server(("127.0.0.1", 0)) as found:
        grpc_port = found.getsockname()[1]
    settings = {"grpc_port": str(grpc_port), **dict(pair.split("=", 1) for pair in args.setting)}
    with running(artifact, WORK_FOLDER / "protocols.log", settings) as server:
        print(server.description, flush=True)
        model = metadata_of(artifact).model_name
        print("| connections | protocol | CPU ms a request | to v1 | work of others |\n|---|---|---|---|---|")
        for connections in args.connections:
            found_ms: dict[str, list[float]] = {protocol: [] for protocol in PROTOCOLS}
            foreign: list[float] = []
            for _ in tqdm(range(args.slices), desc=f"{connections} connections", disable=None):
                for protocol in PROTOCOLS:
                    load = load_of(protocol, server, grpc_port, model, connections)
                    one_ms, share = await cpu_ms(load, server, args.slice_s)
                    found_ms[protocol].append(one_ms)
                    foreign.append(share)
            doubt = f"{median(foreign):.0%}{' (too much)' if median(foreign) > FOREIGN else ''}"
            for protocol, values in found_ms.items():
                to_v1 = median(ratio(value, first) or 0.0 for value, first in zip(values, found_ms["v1 raw"], strict=True))
                print(f"| {connections} | {protocol} | {median(values):.3f} | {to_v1:.2f} | {doubt} |", flush=True)


def main() -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, help="a model that computes (default: one that does not)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16], help="(default: %(default)s)")
    parser.add_argument("--slices", type=int, default=5, help="of each protocol (default: %(default)s)")
    parser.add_argument("--slice-s", type=float, default=3.0, help="length of a slice (default: %(default)s)")
    parser.add_argument("--setting", nargs="+", default=[], metavar="NAME=VALUE", help="of the service: lanes=1 and so on")
    args = parser.parse_args()
    gc.disable()  # the client keeps every answer, and would pause now and then to look through them
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
