"""Two replicas behind the project's gateway (nginx), each ended in turn under load and started again by a supervisor.

    python -m tests.reliability.restarts --requests 6000

First in an orderly way (SIGTERM), then by SIGKILL behind the gateway, then by SIGKILL with clients that speak to the
replicas themselves. Each crop has a text that is known beforehand. Ends with exit code 1 when a request behind the
gateway is lost or not answered with its text, or when a kill costs anybody more than the requests that were in flight
on the killed replica.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.chaos.wild_requests import WildRequest
from tests.reliability.clients import Crowd, Record
from tests.reliability.replicas import Address, Replica, gateway
from tests.toy_artifact import png_of, write_artifact

CLIENTS = 16
TOY_WORK = 8
EXIT_AFTER = {signal.SIGTERM: 0, signal.SIGKILL: -signal.SIGKILL}


class Singles:
    """Requests of one crop, every one with a text of its own."""

    def __init__(self) -> None:
        self._made = 0

    def next(self) -> WildRequest:
        self._made += 1
        text = f"w{self._made}"
        return WildRequest("image/png", png_of(text), [text], single=True)


class Load:
    """Clients at one address that go on until `stop`, or until one of them loses a request."""

    def __init__(self, address: Address, clients: int = CLIENTS) -> None:
        self._crowd = Crowd(address, Singles())
        self._stopped = False
        self._task = asyncio.create_task(self._crowd.closed(clients, lambda: not self._stopped and not self.record.lost))

    @property
    def record(self) -> Record:
        return self._crowd.record

    async def go_on(self, requests: int) -> bool:
        """Until so many more have been sent; whether they were, and no request was lost before."""
        enough = self.record.sent + requests
        while self.record.sent < enough and not self._task.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return self.record.sent >= enough

    async def until_lost(self) -> Record:
        await self._task
        return self.record

    async def stop(self) -> Record:
        self._stopped = True
        await self._task
        return self.record


@asynccontextmanager
async def supervised(artifact: Path, folder: Path) -> AsyncIterator[tuple[Replica, Replica]]:
    replicas = await asyncio.gather(*(asyncio.to_thread(Replica, artifact, folder, f"replica-{index}") for index in (0, 1)))
    supervisors = [asyncio.create_task(replica.supervise()) for replica in replicas]
    try:
        yield replicas[0], replicas[1]
    finally:
        for supervisor in supervisors:
            supervisor.cancel()
        await asyncio.gather(*supervisors, return_exceptions=True)
        for replica in replicas:
            await asyncio.to_thread(replica.close)


def summary(record: Record) -> str:
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(record.statuses.items()))
    return f"{record.sent} requests: {statuses}; lost {record.lost}, wrong {record.wrong}, doubled {record.doubled}"


def complaints_of(record: Record) -> list[str]:
    """Whatever is not an answer with the right text."""
    flawless = record.sent == record.statuses[200] and not record.lost + record.wrong + record.doubled
    return [] if flawless else [summary(record), *record.complaints]


async def behind_the_gateway(artifact: Path, folder: Path, how: signal.Signals, requests: int) -> list[str]:
    """Each replica ended in turn, and started again."""
    async with supervised(artifact, folder) as replicas:
        with gateway(folder / "gateway", (replicas[0].address, replicas[1].address)) as address:
            load = Load(address)
            await load.go_on(requests // 5)
            back_s = []
            for replica in replicas:
                back_s.append(await replica.restart(how))
                while not await asyncio.to_thread(replica.done):  # the gateway leaves it alone for a while
                    if not await load.go_on(CLIENTS):
                        break
            await load.go_on(max(0, requests - load.record.sent))
            record = await load.stop()
        codes = [replica.exit_codes for replica in replicas]
    print(
        f"{how.name} behind the gateway   {summary(record)}; back after {', '.join(f'{seconds:.1f}' for seconds in back_s)} s"
    )
    return complaints_of(record) + ([f"exit codes {codes}"] if codes != [[EXIT_AFTER[how]]] * 2 else [])


async def without_a_gateway(artifact: Path, folder: Path, requests: int) -> list[str]:
    """One replica killed while each has clients of its own."""
    async with supervised(artifact, folder) as replicas:
        killed, other = (Load(replica.address, CLIENTS // 2) for replica in replicas)
        await asyncio.gather(killed.go_on(requests // 4), other.go_on(requests // 4))
        restart = asyncio.create_task(replicas[0].restart(signal.SIGKILL))
        of_killed = await killed.until_lost()
        back_s = await restart
        await other.go_on(requests // 4)
        of_other = await other.stop()
        again = Load(replicas[0].address, CLIENTS // 2)
        await again.go_on(requests // 4)
        of_again = await again.stop()
    print(f"SIGKILL, clients of the killed   {summary(of_killed)}; back after {back_s:.1f} s")
    print(f"SIGKILL, clients of the other    {summary(of_other)}")
    print(f"SIGKILL, the successor's         {summary(of_again)}")
    found = [*complaints_of(of_other), *complaints_of(of_again)]
    if of_killed.lost > CLIENTS // 2 or of_killed.wrong or of_killed.sent != of_killed.statuses[200] + of_killed.lost:
        found += [summary(of_killed), *of_killed.complaints]
    return found


async def _run(requests: int, kills: int, folder: Path) -> list[str]:
    artifact = write_artifact(folder / "toy.onnx", work=TOY_WORK)

    def part(name: str) -> Path:
        (folder / name).mkdir()
        return folder / name

    complaints = await behind_the_gateway(artifact, part("term"), signal.SIGTERM, requests)
    for index in range(kills):
        complaints += await behind_the_gateway(artifact, part(f"kill-{index}"), signal.SIGKILL, requests // 3)
    return complaints + await without_a_gateway(artifact, part("direct"), requests // 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=6000, help="during the orderly restarts, at least")
    parser.add_argument("--kills", type=int, default=1, help="times to do the part with SIGKILL behind the gateway")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's workers are another user
        complaints = asyncio.run(_run(arguments.requests, arguments.kills, folder))
    print("\n".join(complaints) or "behind the gateway nothing was lost")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
