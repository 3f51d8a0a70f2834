"""What front processes and the engine's process tell each other, both ends in this process."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from service.core.metrics import Metrics
from service.core.runtime import Runtime
from service.engine.admission import Budgets, NoDecoding
from service.engine.engine import Engine
from service.engine.types import EngineDownError, Item, Outcome, QueueFullError, Refusal
from service.fronts import wire
from service.fronts.board import BOARD_BYTES, MAX_HOLDERS, Board, Cell, PublishedAdmission
from service.fronts.desk import Desk, FrontItem
from service.fronts.front_engine import FrontEngine, Sender, client_key
from service.fronts.front_host import FrontHost
from service.fronts.pod_metrics import Count, Gathering, snapshot
from service.fronts.slots import N_SLOTS, Slots, new_memory
from service.fronts.wire import Kind, Wire
from service.pod_serving import front_processes
from service.serving import uvicorn_config
from service.sessions.artifact import LoadedArtifact
from service.sessions.topology import plan_topology
from tests.fakes import PATIENCE_S, FakeSession, toy_settings, until
from tests.toy_artifact import METADATA, pixels_of, png_of
from tests.wire import Connection, counting

SLOT_BYTES = 2**16
MOST_CALLS = 245
"""Of our own functions, for one small PNG file, in front and engine together, counted as for one process."""


class Ends:
    """A front's engine and the desk that it talks to."""

    def __init__(self, session: FakeSession, **settings: Any) -> None:
        chosen = toy_settings(**settings)
        artifact = LoadedArtifact(METADATA, session, "cpu", plan_topology(chosen, "cpu", budget=2))
        self.runtime = Runtime(chosen, artifact, deliver=self.deliver)
        self.model = self.runtime.models.default
        self.session = session
        self.model.engine.changed = self.publish
        self.desk: Desk
        memories = new_memory("board", BOARD_BYTES), new_memory("slots", N_SLOTS * SLOT_BYTES)
        self.board = Board(memories[0])
        self.slots = [Slots(memories[1], SLOT_BYTES) for _ in range(2)]
        for memory in memories:
            os.close(memory)
        ours, theirs = socket.socketpair()
        self.wires = Wire(ours), Wire(theirs)
        self.sender = Sender(self.wires[1], self.slots[1])
        self.metrics = Metrics()
        self.front = self.engine_of(Budgets(1.0, 2.0))
        self.gone = False

    def engine_of(self, budgets: Budgets) -> FrontEngine:
        admission = PublishedAdmission(self.board, 0, 1, budgets, NoDecoding())
        return FrontEngine(1, self.sender, admission, self.metrics.observer("toy"))

    def deliver(self, items: Iterable[Item]) -> None:
        self.publish()
        self.desk.deliver([item for item in items if isinstance(item, FrontItem)])

    def publish(self) -> None:
        engine = self.model.engine
        assert isinstance(engine, Engine)
        self.board.tell_state(0, engine.admission_state)

    def front_says(self, desk: Desk, what: Mapping[str, Any]) -> None:
        assert "serving" in what or "last" in what

    def host(self) -> FrontHost:
        """The whole of a front, instead of `front`."""
        model, metadata = self.model, self.model.metadata.to_map()
        told = {"number": 1, "place": 0, "name": model.name, "aliases": [], "version": model.version, "metadata": metadata}
        told |= {"sha256": model.sha256, "provider": model.provider, "lanes": 1}
        self.board.tell_flags(ready=True, alive=True)
        return FrontHost(self.runtime.settings, self.wires[1], self.board, self.sender, 0, 1, {"models": [told]}, None)

    def touched(self, models: Iterable[int]) -> None:
        self.publish()

    def front_gone(self, desk: Desk) -> None:
        self.gone = True
        desk.close()

    def on_record(self, kind: int, record: memoryview) -> None:
        if kind == Kind.RESULT:
            self.sender.settled(record)
        elif kind == Kind.REFUSED:
            self.sender.refused(record)
        else:
            assert kind == Kind.FREED
            self.sender.freed(wire.FREED.unpack_from(record)[2])

    def told_busy_lanes(self) -> int:
        admission = self.front._admission
        admission.refresh()
        return admission._busy_lanes

    async def settled(self, item: Item) -> None:
        await until(lambda: item.outcome is not None)


@asynccontextmanager
async def connected(**settings: Any) -> AsyncIterator[Ends]:
    ends = Ends(FakeSession(), **settings)
    ends.runtime.start()
    await until(lambda: ends.runtime.ready)
    ends.desk = Desk(0, ends.wires[0], ends.slots[0], ends)
    ends.desk.knows({1: ends.model})
    ends.desk.start()
    ends.sender.start()
    ends.wires[1].attach(ends.on_record, lambda: None, lambda: None)
    ends.publish()
    try:
        yield ends
    finally:
        ends.session.gate.set()
        if not ends.gone:
            ends.desk.close()
        ends.wires[1].close()
        await ends.runtime.stop()


def new_item(client: object = "somebody", **values: Any) -> Item:
    return Item(asyncio.get_running_loop().time() + PATIENCE_S, lambda _item: None, client=client, **values)  # type: ignore[arg-type]


def text_in(item: Item) -> list[int]:
    assert item.token_ids is not None
    return [int(number) for number in item.token_ids if number]


def test_crops_of_several_requests_come_back_as_their_own_texts() -> None:
    async def scenario() -> None:
        async with connected() as ends:
            texts = [f"w{number}" for number in range(3 * N_SLOTS)]  # more than there are slots
            items = [new_item() for _ in texts]
            for item, text in zip(items, texts, strict=True):
                ends.front.admit([item])
                ends.front.submit(item, pixels_of(text))
            for item, text in zip(items, texts, strict=True):
                await ends.settled(item)
                assert item.outcome is Outcome.DONE
                assert text_in(item) == [number for number in pixels_of(text)[0, :, 0] if number]
                assert item.batch_size
                assert item.queue_s >= 0.0
            assert not ends.sender.items

    asyncio.run(scenario())


def test_what_may_be_read_and_candidates_travel_too() -> None:
    async def scenario() -> None:
        async with connected() as ends:
            item = new_item(allowed=np.zeros(len(METADATA.vocabulary), bool), wants_top=True)
            assert item.allowed is not None
            item.allowed[7] = True
            ends.front.admit([item])
            ends.front.submit(item, pixels_of("abc"))
            await ends.settled(item)
            assert text_in(item) == [8, 8, 8]
            assert item.top_ids is not None
            assert item.top_confidences is not None
            assert item.top_ids.shape == item.top_confidences.shape
            assert (item.top_ids[:, 0] == item.token_ids).all()

    asyncio.run(scenario())


def test_an_item_that_was_given_up_is_cancelled_in_the_engine() -> None:
    async def scenario() -> None:
        async with connected() as ends:
            ends.session.gate.clear()
            first, second = new_item(), new_item()
            for item in (first, second):
                ends.front.admit([item])
                ends.front.submit(item, pixels_of("a"))
                await until(lambda: ends.model.engine.longest_run_s > 0)  # the first is alone in its batch
            await until(lambda: ends.model.engine.in_flight == 2)
            ends.front.abandon([second], Outcome.CANCELLED)
            await until(lambda: ends.model.engine.in_flight == 1)
            ends.session.gate.set()
            await ends.settled(first)
            assert (first.outcome, second.outcome) == (Outcome.DONE, Outcome.CANCELLED)
            assert ends.runtime.metrics.crops.labels("toy", "cancelled")._value.get() == 1

    asyncio.run(scenario())


def test_a_run_that_nobody_waits_for_any_more_leaves_no_busy_lane_on_the_board() -> None:
    async def scenario() -> None:
        async with connected() as ends:
            ends.session.gate.clear()
            item = new_item()
            ends.front.admit([item])
            ends.front.submit(item, pixels_of("a"))
            await until(lambda: ends.model.engine.longest_run_s > 0)
            ends.front.abandon([item], Outcome.CANCELLED)
            await until(lambda: ends.told_busy_lanes() == 1)
            ends.session.gate.set()
            await until(lambda: ends.told_busy_lanes() == 0)

    asyncio.run(scenario())


def test_a_front_that_is_gone_leaves_nothing_in_the_engine() -> None:
    async def scenario() -> None:
        async with connected() as ends:
            ends.session.gate.clear()
            items = [new_item() for _ in range(4)]
            ends.front.admit(items)
            ends.front.submit(items[0], pixels_of("a"))
            await until(lambda: ends.model.engine.in_flight == 4)
            assert ends.model.n_requests == 1
            ends.wires[1].close()
            await until(lambda: ends.gone)
            ends.session.gate.set()
            await until(lambda: ends.model.engine.in_flight == 0)
            assert ends.model.n_requests == 0

    asyncio.run(scenario())


def test_a_front_refuses_by_the_board_and_the_engine_refuses_what_it_let_pass() -> None:
    async def scenario() -> None:
        async with connected(max_queue_items=4, max_crops_per_request=4) as ends:
            ends.session.gate.clear()
            running, *waiting = [new_item() for _ in range(5)]
            ends.front.admit([running])
            ends.front.submit(running, pixels_of("a"))
            await until(lambda: ends.model.engine.longest_run_s > 0)  # it waits no more
            surplus = [new_item() for _ in range(3)]
            ends.publish()
            # Both before the engine hears of the first: the board does not know of it.
            ends.front.admit(waiting)
            ends.front.admit(surplus)
            for item in surplus:
                await ends.settled(item)
                assert isinstance(item.error, QueueFullError)
                assert item.error.refusal is Refusal.QUEUE_FULL
            assert ends.runtime.metrics.crops_refused.labels("toy", "queue_full")._value.get() == 3
            with pytest.raises(QueueFullError):
                ends.front.admit([new_item()])
            assert ends.front.refusal_of(1, False, 1.0, "somebody") is not None
            assert ends.front.refusal_of(1, False, PATIENCE_S, "somebody else") is None  # who has less than its share
            assert ends.metrics.crops_refused.labels("toy", "queue_full")._value.get() == 1

    asyncio.run(scenario())


def test_nothing_is_admitted_when_the_engine_takes_nothing() -> None:
    async def scenario() -> None:
        async with connected() as ends:
            await asyncio.to_thread(ends.model.engine.stop, PATIENCE_S)
            item = new_item()
            ends.front.admit([item])  # the board does not tell yet
            await ends.settled(item)
            assert isinstance(item.error, EngineDownError)
            ends.publish()
            with pytest.raises(EngineDownError):
                ends.front.admit([new_item()])

    asyncio.run(scenario())


def test_the_board_does_without_clients_that_it_has_no_room_for() -> None:
    async def scenario() -> None:
        async with connected(max_queue_items=2 * MAX_HOLDERS, max_crops_per_request=4) as ends:
            ends.session.gate.clear()
            items = [new_item(client=f"client {number}") for number in range(2 * MAX_HOLDERS)]
            for item in items:
                ends.front.admit([item])
                await asyncio.sleep(0)
            await until(lambda: ends.model.engine.in_flight == len(items))
            assert ends.front.refusal_of(1, False, 1.0, "client 1") is None
            surplus = new_item(client="client 1")
            ends.front.admit([surplus])
            await ends.settled(surplus)
            assert isinstance(surplus.error, QueueFullError)

    asyncio.run(scenario())


def test_a_full_socket_blocks_nobody_and_loses_nothing() -> None:
    async def scenario() -> None:
        near, far = [Wire(end) for end in socket.socketpair()]
        told: list[int] = []
        near.attach(lambda _kind, _record: None, lambda: None, lambda: None)
        for number in range(50):  # some MB, which nobody reads yet; some go in part
            near.send(wire.control(number=number, padding="x" * 300_000))
        far.attach(lambda _kind, record: told.append(wire.read_control(record)["number"]), lambda: None, lambda: None)
        await until(lambda: len(told) == 50)
        assert told == list(range(50))
        far.close()
        near.send(wire.control(number=0))
        near.close()

    asyncio.run(scenario())


def test_a_record_that_cannot_be_taken_ends_the_connection() -> None:
    async def scenario() -> None:
        near, far = [Wire(end) for end in socket.socketpair()]
        closed: list[bool] = []
        far.attach(lambda _kind, record: wire.read_result(record, new_item()), lambda: None, lambda: closed.append(True))  # type: ignore[arg-type,return-value]
        near.send(wire.control(number=0))
        await until(lambda: closed == [True])
        assert far.closed
        near.close()

    asyncio.run(scenario())


def test_cells_add_up_and_are_cleared() -> None:
    memory = new_memory("board", BOARD_BYTES)
    board = Board(memory)
    os.close(memory)
    cells = [Cell(board, front, 0, 3) for front in range(3)]
    for number, cell in enumerate(cells):
        cell.tell(10**number)
    assert [cell.others() for cell in cells] == [110, 101, 11]
    assert Cell(board, 0, 1, 3).others() == 0
    board.clear_cell(2)
    assert cells[0].others() == 10


def test_clients_are_told_apart() -> None:
    keys = [client_key(client) for client in (None, "192.0.2.1", "192.0.2.2", b"\0" * 32, b"\1" * 32)]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {16}


def test_metrics_of_several_processes_are_added_up_or_are_the_engines() -> None:
    engine, first, second = Metrics(), Metrics(), Metrics()
    gathering = Gathering(engine.registry)
    engine.ready.set(1)
    engine.crops.labels("toy", "done").inc(5)
    for number, metrics in enumerate((first, second), 1):
        metrics.connections.set(number)
        metrics.request_duration.labels("200").observe(0.003 * number, {"trace_id": f"{number}"})
        metrics.problem_told("queue-full")
    gathering.fallen(Count(snapshot(second.registry)))
    gathering.fallen(Count(snapshot(second.registry)))
    others = [Count(snapshot(first.registry))]
    text = gathering.render(others, False).decode().splitlines()
    assert "parseq_ready 1.0" in text
    assert "parseq_connections 1.0" in text  # those of a process that has ended are closed
    assert 'parseq_crops_total{model="toy",outcome="done"} 5.0' in text
    assert 'parseq_request_duration_seconds_count{status="200"} 3.0' in text
    assert 'parseq_problems_total{problem="queue-full"} 3.0' in text
    names = [line.split()[2] for line in text if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    assert "# EOF" in gathering.render(others, True).decode()


async def cheapest_request() -> Counter[str]:
    """The calls of a request from its bytes to those of the answer."""
    content, counted = png_of("word"), []
    request = b"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n%b"
    with counting() as calls:
        ends = Ends(FakeSession(), self_check_interval_s=0)
        ends.runtime.start()
        await until(lambda: ends.runtime.ready)
        ends.desk = Desk(0, ends.wires[0], ends.slots[0], ends)
        ends.desk.knows({1: ends.model})
        ends.desk.start()
        ends.publish()
        host = ends.host()
        config = uvicorn_config(host.settings, host, (Cell(ends.board, 0, 0, 1), Cell(ends.board, 0, 1, 1)))
        app: Any = config.app
        async with app.api.router.lifespan_context(app.api):
            connection = Connection(config)
            for _ in range(20):
                calls.reset()
                assert b'"text":"word"' in await connection.ask(request % (len(content), content))
                await asyncio.sleep(0.01)  # the lane goes back to wait
                counted.append(calls.counts.copy())
            connection.close()
        ends.desk.close()
        ends.wires[1].close()
        await ends.runtime.stop()
    return min(counted, key=Counter.total)


def test_a_request_costs_a_hundred_calls_more_than_in_one_process() -> None:
    cheapest = asyncio.run(cheapest_request())
    assert 150 < cheapest.total() <= MOST_CALLS, "\n".join(f"{n} {name}" for name, n in sorted(cheapest.items()))


@pytest.mark.parametrize(
    ("provider", "budget", "settings", "n_fronts"),
    [
        ("cpu", 8, {}, 1),
        ("cuda", 2, {}, 1),
        ("cuda", 6, {}, 3),
        ("tensorrt", 32, {}, 4),
        ("cuda", 32, {"grpc_port": 9}, 1),
        ("cpu", 2, {"http_workers": 3}, 3),
        ("cuda", 32, {"http_workers": 1}, 1),
    ],
)
def test_front_processes_are_for_gpus(provider: str, budget: int, settings: dict[str, int], n_fronts: int) -> None:
    assert front_processes(toy_settings(**settings), provider, budget) == n_fronts
