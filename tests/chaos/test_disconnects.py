"""Ten thousand requests, right and wrong, many of them given up at random moments: nothing is lost, leaked or mixed up."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path

import httpx
import uvloop

from tests.chaos.wild_requests import WildRequests
from tests.integration.server import PATIENCE_S, ServerProcess, come_to_rest, outcomes, running, unsettled
from tests.reliability import faulty_server
from tests.reliability.faulty_server import Faults
from tests.reliability.memory import resident_bytes
from tests.toy_artifact import png_of, write_artifact

REQUESTS = 10_000
IN_PODS = 4
"""With front processes, one part in so many: it is the same app."""
SEED = int(os.environ.get("PARSEQ_TEST_SEED", "0"))
PHASES = 4
"""Between them everything comes to rest, and memory is looked at; the first one warms up."""
CLIENTS = 48
MAX_PAUSE_S = 0.03
"""Before a client gives up that has sent everything: its crops are being decoded, wait, are read, or are answered by then."""
FAULTS = Faults(slow_share=0.004, slow_s=0.15)
"""Runs that last longer than a hasty client waits."""
MAX_GROWTH_BYTES = 12 * 2**20
"""A crop kept for each request given up would be 40 MB in each phase."""


class Moment(Enum):
    """When a client gives up."""

    NEVER = auto()
    WHILE_SENDING = auto()
    ALL_SENT = auto()
    WHILE_WAITING = auto()
    WHILE_READING = auto()


@dataclass
class Chaos:
    """Many clients at one server; `seen` counts statuses, and the moments at which clients gave up."""

    host: str
    port: int

    def __post_init__(self) -> None:
        self.random = random.Random(SEED)
        self.requests = WildRequests(SEED)
        self.seen: Counter[object] = Counter()
        self._left = 0

    async def run(self, n_requests: int) -> None:
        self._left = n_requests
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._client())

    async def _client(self) -> None:
        while self._left > 0:
            self._left -= 1
            async with asyncio.timeout(PATIENCE_S):
                await self._request()

    async def _request(self) -> None:
        request = self.requests.next()
        moment = self.random.choices(list(Moment), [10, 2, 2, 4, 2])[0]
        content = request.encoded()
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            if moment is Moment.WHILE_SENDING:
                writer.write(content[: self.random.randrange(len(content))])
                await asyncio.sleep(self.random.uniform(0, MAX_PAUSE_S / 10))
            else:
                writer.write(content)
            if moment is Moment.WHILE_WAITING:
                await asyncio.sleep(self.random.uniform(0, MAX_PAUSE_S))
            elif moment is Moment.WHILE_READING:
                await reader.read(self.random.randint(1, 60))
            elif moment is Moment.NEVER:
                status, body = await _read_answer(reader)
                request.check(status, body)
                self.seen[status] += 1
            self.seen[moment] += 1
        finally:
            # Half of them say goodbye, half are torn away.
            writer.transport.abort() if self.random.random() < 0.5 else writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.I)
    assert length, head
    return int(head.split()[1]), await reader.readexactly(int(length[1]))


def open_files(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def test_ten_thousand_requests_and_random_disconnects_leave_nothing_behind(tmp_path: Path, both_forms: int) -> None:
    n_requests = REQUESTS if both_forms == 1 else REQUESTS // IN_PODS
    faults = replace(FAULTS, slow_share=FAULTS.slow_share * REQUESTS / n_requests)
    artifact = write_artifact(tmp_path / "toy.onnx", work=1)
    with running(artifact, tmp_path / "log", module=faulty_server.MODULE, variables=faults.environment()) as server:
        server.process.send_signal(faulty_server.ARM)
        host, port = server.url.removeprefix("http://").split(":")
        chaos = Chaos(host, int(port))
        files_before, resident = open_files(server), []
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for _ in range(PHASES):
                runner.run(chaos.run(n_requests // PHASES))
                come_to_rest(server)
                resident.append(resident_bytes(server.process.pid))

        assert unsettled(server) == 0
        assert all(outcomes(server)[name] > 0 for name in ("done", "expired", "cancelled", "failed")), outcomes(server)
        assert all(chaos.seen[moment] > n_requests / 100 for moment in Moment), chaos.seen
        assert sum(chaos.seen[moment] for moment in Moment) == n_requests
        assert chaos.seen[200] > n_requests / 5, chaos.seen
        assert max(resident[1:]) - resident[0] < MAX_GROWTH_BYTES, resident
        assert open_files(server) <= files_before + 2
        answer = httpx.post(f"{server.url}/v1/recognize", content=png_of("still"), headers={"content-type": "image/png"})
        assert answer.json()["text"] == "still"
        assert httpx.get(f"{server.url}/livez").status_code == httpx.get(f"{server.url}/readyz").status_code == 200
        assert server.terminate() == 0
        assert "Traceback" not in server.log.read_text()
