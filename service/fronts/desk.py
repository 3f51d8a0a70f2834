"""The engine's side of one front process: its records become calls of the engines, and what they settle becomes records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from service.core.served_model import ServedModel
from service.engine.types import EngineDownError, Item, Outcome, QueueFullError
from service.fronts import wire
from service.fronts.slots import N_SLOTS, Slots
from service.fronts.wire import Cause, Kind, Wire

FREED_AT_ONCE: Final = N_SLOTS // 2
"""Slots are given back so many at a time."""


class DeskUser(Protocol):
    """Whoever has the desks."""

    def front_says(self, desk: Desk, what: Mapping[str, Any]) -> None:
        """A rare matter."""
        ...

    def touched(self, models: Iterable[int]) -> None:
        """The state of these models has changed."""
        ...

    def front_gone(self, desk: Desk) -> None:
        """The front's end of the connection is closed."""
        ...


def _nothing(_item: Item) -> None:
    """Items of fronts are delivered by their desk."""


@dataclass(slots=True, eq=False)
class FrontItem(Item):
    """An item of a request that a front serves."""

    desk: Desk = field(kw_only=True)
    number: int = field(kw_only=True)
    model: int = field(kw_only=True)
    """Number of its model."""


class Desk:
    """One front process.

    Args:
        index: Of the front.
        end: To it.
        slots: Of it.
        user: Told of what is not about items.
    """

    def __init__(self, index: int, end: Wire, slots: Slots, user: DeskUser) -> None:
        self.index = index
        self.end = end
        self.serving = False
        """Whether it has begun to serve."""
        self._slots = slots
        self._user = user
        self._models: dict[int, ServedModel] = {}
        """That the front knows; each is in use as long as it does."""
        self._items: dict[int, tuple[FrontItem, ServedModel]] = {}
        self._touched: set[int] = set()
        self._n_read = 0
        self._handlers: dict[int, Callable[[tuple[Any, ...]], None]] = {
            Kind.ADMIT: self._admit,
            Kind.SUBMIT: self._submit,
            Kind.FOLLOW: self._follow,
            Kind.END: self._end_item,
            Kind.DEMOTE: self._demote,
        }

    def start(self) -> None:
        """Listen to the front, on the running event loop."""
        self.end.attach(self._on_record, self._on_pause, self._on_closed)

    def knows(self, models: Mapping[int, ServedModel]) -> None:
        """The front is told of these models."""
        for number, model in models.items():
            if number not in self._models:
                self._models[number] = model
                model.n_requests += 1

    def forget(self, number: int) -> None:
        """The front has answered its last request for a model."""
        model = self._models.pop(number, None)
        if model is not None:
            model.request_ended()

    def deliver(self, items: Iterable[FrontItem]) -> None:
        """Send items that were settled, from any thread."""
        items = [item for item in items if self._items.pop(item.number, None) is not None]
        if items:
            self.end.send(b"".join([wire.result(item, item.number, _cause(item)) for item in items]))

    def close(self) -> None:
        """The front is gone: whatever it had in the engines is cancelled."""
        self.end.close()
        self._slots.close()
        for item, model in list(self._items.values()):
            _abandon(item, model, Outcome.CANCELLED)
        self._items.clear()
        self._user.touched(self._models)
        for number in list(self._models):
            self.forget(number)

    def _on_record(self, kind: int, record: memoryview) -> None:
        if kind == Kind.CONTROL:
            self._user.front_says(self, wire.read_control(record))
            return
        values = wire.ITEM.unpack_from(record)
        self._touched.add(values[4])
        self._handlers[kind](values)

    def _on_pause(self) -> None:
        if self._n_read >= FREED_AT_ONCE:
            self.end.send(wire.freed(self._n_read))
            self._n_read = 0
        touched, self._touched = self._touched, set()
        self._user.touched(touched)

    def _on_closed(self) -> None:
        self._user.front_gone(self)

    def _admit(self, values: tuple[Any, ...]) -> None:
        _, _, _, _, model_number, first, count, *_ = values
        model = self._models.get(model_number)
        items = [self._item(values, number) for number in range(first, first + count)]
        try:
            if model is None:
                raise EngineDownError("the model has ended")
            model.engine.admit(items)
        except QueueFullError as error:
            self.end.send(wire.refused(error, first, count))
        except EngineDownError:
            self.end.send(b"".join([wire.result(item, item.number, Cause.DOWN) for item in items]))
        else:  # none of them ends before it is submitted, which happens on this thread
            self._items.update((item.number, (item, model)) for item in items)

    def _item(self, values: tuple[Any, ...], number: int) -> FrontItem:
        _, _, flags, _, _, _, _, deadline_s, client, trace = values
        item = FrontItem(deadline_s, _nothing, bool(flags & wire.BULK), desk=self, number=number, model=values[4])
        item.client = None if client == wire.NO_CLIENT else client
        item.exemplar = None if trace == wire.NO_TRACE else {"trace_id": trace.hex()}
        return item

    def _submit(self, values: tuple[Any, ...]) -> None:
        found = self._items.get(values[5])
        self._n_read += 1
        if found is not None:
            item, model = found
            self._take_crop(item, model, values)
            model.engine.submit(item, item.pixels)

    def _follow(self, values: tuple[Any, ...]) -> None:
        model = self._models.get(values[4])
        self._n_read += 1
        item = self._item(values, values[5])
        item.is_follower = True
        if model is None:
            self.end.send(wire.result(item, item.number, Cause.DOWN))
            return
        self._take_crop(item, model, values)
        self._items[item.number] = item, model
        # The front knows whether the leader may have followers, and ends them with it.
        model.engine.follow(Item(item.deadline_s, _nothing, outcome=Outcome.DONE), [item])

    def _take_crop(self, item: FrontItem, model: ServedModel, values: tuple[Any, ...]) -> None:
        flags, metadata = values[2], model.metadata
        item.wants_top = bool(flags & wire.WANTS_TOP)
        n_allowed = len(metadata.vocabulary) if flags & wire.HAS_ALLOWED else 0
        shape = metadata.image_height, metadata.image_width, 3
        item.crop, item.allowed = self._slots.read(values[3], shape, n_allowed)

    def _end_item(self, values: tuple[Any, ...]) -> None:
        found = self._items.pop(values[5], None)
        if found is not None:
            item, model = found
            _abandon(item, model, wire.OUTCOMES[values[2]])

    def _demote(self, values: tuple[Any, ...]) -> None:
        found = self._items.get(values[5])
        if found is not None:
            item, model = found
            model.engine.demote(item)


def _abandon(item: FrontItem, model: ServedModel, outcome: Outcome) -> None:
    if item.is_follower:  # which is not counted: a leader is asked to let it go
        model.engine.abandon([Item(item.deadline_s, _nothing, outcome=Outcome.DONE, followers=(item,))], outcome)
    else:
        model.engine.abandon([item], outcome)


def _cause(item: Item) -> Cause:
    if item.error is None:
        return Cause.NONE
    return Cause.DOWN if isinstance(item.error, EngineDownError) else Cause.INFERENCE
