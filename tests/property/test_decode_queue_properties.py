"""Rules of what is decoded when, played through with threads that are plain lists and images of made-up cost."""

from __future__ import annotations

import heapq
from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.decode_backlog import DecodeRequest, Job
from service.engine.decode_queue import DecodeQueue, Running
from service.engine.queue import BULK_EVERY

OPENING_S = 0.15


class Play:
    """Decode threads on a simulated clock: each image takes what its request says, all of it processor time."""

    def __init__(self, threads: int = 1) -> None:
        self.queue = DecodeQueue(threads)
        self.now_s = 0.0
        self.ran: list[tuple[float, str, float]] = []
        """When an image began, of which request, and how long it took."""
        self.refused: list[str] = []
        self._free = [False] * threads + [True]
        self._at_work: list[tuple[float, int, Running, str, float, bool]] = []
        self._n_begun = 0
        self._names: dict[DecodeRequest, tuple[str, float, bool]] = {}
        self._regions: dict[DecodeRequest, int] = {}
        self.open_pages = 0
        self.most_open_pages = 0

    def post(
        self, name: str, cost_s: float, n: int = 1, *, client: str = "", deadline_s: float = 5.0, heavy: bool = False,
        bulk: bool | None = None, budget_s: float = 1e9,
    ) -> DecodeRequest:  # fmt: skip
        """Post `n` images; a single one that is `heavy` is found out when a thread looks at it."""
        jobs: deque[Job] = deque([bool] * n)
        request = DecodeRequest(client, n > 1 if bulk is None else bulk, self.now_s + deadline_s, jobs, budget_s)
        self._names[request] = name, cost_s, heavy
        self.queue.push(request)
        self._begin()
        return request

    def post_page(
        self, name: str, cut_s: float, n_regions: int, *, client: str = "", deadline_s: float = 30.0
    ) -> DecodeRequest:
        """Post a page, which takes `OPENING_S` to open, and regions of it that take `cut_s` each."""
        request = DecodeRequest(client, True, self.now_s + deadline_s, deque([bool]), opening=True)
        self._names[request] = name, cut_s, False
        self._regions[request] = n_regions
        self.queue.push(request)
        self._begin()
        return request

    def _page_ran(self, running: Running) -> None:
        """What the job that opens a page does at its end, and the last one that cuts from it."""
        request = running.request
        if running.opening:
            self.queue.extend(request, [bool] * self._regions[request])
            self.open_pages += 1
            self.most_open_pages = max(self.most_open_pages, self.open_pages)
        elif request in self._regions and not request.jobs and request.n_running == 1:
            self.open_pages -= 1

    def run(self, until_s: float = 1e9) -> None:
        while self._at_work and self._at_work[0][0] <= until_s:
            self.now_s, _, running, name, cost_s, light = heapq.heappop(self._at_work)
            self._page_ran(running)
            wait_s = self.queue.done(running, cost_s, cost_s, light)
            if wait_s is not None:
                self.refused.append(name)
            self._free.append(running.express)
            self._begin()
            self.check()
        self.now_s = max(self.now_s, until_s) if until_s < 1e9 else self.now_s

    def _begin(self) -> None:
        for express in list(self._free):
            running = self.queue.take(express)
            if running is None:
                continue
            self._free.remove(express)
            name, cost_s, heavy = self._names[running.request]
            light = not (heavy and running.priority == 0)
            assert not express or running.priority == 0
            cost_s = OPENING_S if running.opening else cost_s if light else 1e-5
            if light and not running.opening:
                self.ran.append((self.now_s, name, cost_s))
            self._n_begun += 1
            heapq.heappush(self._at_work, (self.now_s + cost_s, self._n_begun, running, name, cost_s, light))

    def check(self) -> None:
        """The sums that admission looks at are right."""
        for line in self.queue._backlogs:
            wanted_s = sum((len(request.jobs) + request.n_running) * line.expected_s(request) for request in line.unfinished)
            counted_s = sum(request.counted_s for request in line.unfinished)
            assert line.work_s == pytest.approx(counted_s, abs=1e-6)
            assert line.n_waiting == sum(len(request.jobs) for request in [*line.tickets, *line.begun])
            assert wanted_s >= 0

    def used_s(self, name: str, until_s: float = 1e9) -> float:
        return sum(cost_s for began_s, of, cost_s in self.ran if of == name and began_s < until_s)

    def began_s(self, name: str) -> list[float]:
        return [began_s for began_s, of, _ in self.ran if of == name]


requests = st.lists(
    st.tuples(
        st.sampled_from([0.001, 0.02, 0.25]),  # cost
        st.sampled_from([1, 1, 2, 30]),  # images
        st.sampled_from("abc"),  # client
        st.booleans(),  # heavy
        st.sampled_from([0.0, 0.01, 0.3]),  # pause before the next one
        st.booleans(),  # whether its client leaves some time later
    ),
    max_size=30,
)


@given(requests, st.integers(1, 3))
def test_every_image_is_decoded_once_unless_its_client_leaves(
    course: list[tuple[float, int, str, bool, float, bool]], threads: int
) -> None:
    play, wanted, leavers = Play(threads), Counter[str](), list[DecodeRequest]()
    for number, (cost_s, n, client, heavy, pause_s, leaves) in enumerate(course):
        request = play.post(str(number), cost_s, n, client=client, heavy=heavy)
        if leaves:
            leavers.append(request)
        else:
            wanted[str(number)] += n
        play.run(play.now_s + pause_s)
        if leavers and pause_s:
            play.queue.drop(leavers.pop())
    for request in leavers:
        play.queue.drop(request)
    play.run()
    ran = Counter(name for _, name, _ in play.ran)
    assert all(ran[name] == n for name, n in wanted.items())
    assert all(ran[str(number)] <= n for number, (_, n, *_) in enumerate(course))
    assert (play.queue.waiting(True), play.queue.waiting(False)) == (0, 0)
    assert play.queue.backlog_s(True) == play.queue.backlog_s(False) == 0.0


@given(
    st.lists(st.tuples(st.sampled_from([0.0005, 0.02]), st.integers(1, 40), st.sampled_from("abc"), st.booleans()), max_size=8),
    st.integers(1, 3),
)
def test_pages_that_are_open_are_cut_up_before_another_is_opened(
    posted: list[tuple[float, int, str, bool]], threads: int
) -> None:
    play, leavers = Play(threads), list[DecodeRequest]()
    for number, (cut_s, n_regions, client, leaves) in enumerate(posted):
        request = play.post_page(str(number), cut_s, n_regions, client=client)
        if leaves:
            leavers.append(request)
        play.post("crop", 0.001, client=client)
        play.post("crops", 0.001, 5, client=client)
        play.run(play.now_s + 0.1)
        if leaves and number % 2:
            play.queue.drop(leavers.pop())
    play.run()
    assert play.most_open_pages <= 2 * threads + len(leavers)
    ran = Counter(name for _, name, _ in play.ran)
    for number, (_, n_regions, _, leaves) in enumerate(posted):
        assert ran[str(number)] == n_regions or (leaves and number % 2)
    assert (ran["crop"], ran["crops"]) == (len(posted), 5 * len(posted))
    assert play.queue.waiting(True) == 0
    assert play.queue.backlog_s(True) == 0.0


def test_single_crops_go_between_the_regions_of_a_page() -> None:
    play = Play(threads=1)
    play.post_page("page", 0.01, 100)
    play.run(0.2)
    for _ in range(3):  # one for the express thread, the others for the one that cuts
        play.post("crop", 0.001)
    play.run(0.25)
    assert len(play.began_s("crop")) == 3


def test_a_page_does_not_make_its_regions_look_slow() -> None:
    play = Play(threads=1)
    play.post_page("page", 0.001, 100)
    play.run(OPENING_S + 0.05)
    assert 0 < play.queue.backlog_s(True) < 0.2
    other = play.post_page("other", 0.001, 100)
    assert play.queue._backlogs[2].expected_s(other) == pytest.approx(OPENING_S), "but the next page does"


@given(st.sampled_from([0.002, 0.05, 0.25, 1.0]), st.integers(1, 3))
def test_single_crops_never_wait_for_slow_lists(slow_s: float, threads: int) -> None:
    play = Play(threads)
    for client in range(4):
        play.post("slow", slow_s, 128, client=str(client), deadline_s=30.0)
    for index in range(50):
        play.run(0.013 * index)
        play.post(f"good {index}", 0.001)
        assert play.began_s(f"good {index}") == [play.now_s]


@given(st.sampled_from([0.001, 0.02, 0.25]), st.sampled_from([0.004, 0.01]))
def test_bulk_keeps_its_share_beside_a_flood_of_single_crops_and_has_no_more(bulk_s: float, single_s: float) -> None:
    play = Play()
    # More than its share, and as much more as would be told from it.
    play.post("bulk", bulk_s, int(1.3 / bulk_s), deadline_s=1e6)
    for index in range(int(3 / single_s)):
        play.post("single", single_s, deadline_s=5.0 + index)
    play.run(1.5)  # both threads have work for so long
    bulk, singles = play.used_s("bulk", 1.5), play.used_s("single", 1.5)
    share_s = (bulk + singles) / BULK_EVERY
    assert share_s - 2 * bulk_s - 0.02 <= bulk <= share_s + 2 * bulk_s + 0.02


@given(st.sampled_from([0.001, 0.02, 0.25]))
def test_large_single_pictures_keep_a_share_too_and_go_before_bulk(bulk_s: float) -> None:
    play = Play()
    play.post("bulk", bulk_s, 5000, deadline_s=1e6)
    for _ in range(40):
        play.post("photo", 0.02, heavy=True)
    play.run(2.5)
    assert len(play.began_s("photo")) == 40
    assert play.used_s("bulk", play.began_s("photo")[-1]) <= 0.25 * 0.8 + 2 * bulk_s  # a tenth, and what was at work


@given(st.sampled_from([0.005, 0.25]), st.integers(2, 5))
def test_clients_share_the_time_that_decoding_takes(slow_s: float, n_hogs: int) -> None:
    play = Play()
    for _ in range(3):
        for hog in range(n_hogs):
            play.post(f"hog {hog}", slow_s, 400, client=str(hog), deadline_s=30.0)
    play.run(1.0)
    began_s = play.now_s
    play.post("modest", 0.005, 100, client="modest", deadline_s=30.0)
    play.run()
    took_s = play.began_s("modest")[-1] - began_s
    assert took_s <= (n_hogs + 1) * (100 * 0.005 + 2 * slow_s) + slow_s
    used = [play.used_s(f"hog {hog}", began_s + took_s) for hog in range(n_hogs)]
    assert max(used) - min(used) <= 2 * slow_s + 1e-9


def test_a_list_of_slow_images_is_overtaken_by_those_of_its_own_client_that_came_later() -> None:
    play = Play()
    play.post("slow", 0.25, 128, deadline_s=30.0)
    play.run(2.0)
    play.post("quick", 0.001, 32, deadline_s=30.0)
    play.run(3.0)
    assert len(play.began_s("quick")) == 32
    assert len(play.began_s("slow")) < 14


def test_lists_of_ordinary_crops_stay_in_order() -> None:
    play = Play()
    for number in range(3):
        play.post(str(number), 0.0003, 128, deadline_s=30.0 + number)
    play.run()
    assert [name for _, name, _ in play.ran] == ["0"] * 128 + ["1"] * 128 + ["2"] * 128


def test_what_waits_is_predicted_from_what_its_request_has_used() -> None:
    play = Play()
    play.post("quick", 0.001, 100, client="a", deadline_s=30.0)
    play.run()
    play.post("slow", 0.25, 100, client="hog", deadline_s=30.0)
    play.run(play.now_s + 1.0)
    left_s = 0.25 * 96
    assert play.queue.backlog_s(True) == pytest.approx(left_s, rel=0.2)
    assert play.queue.wait_s(True, "hog", play.now_s + 1.0) == 0.0  # urgent: before its own
    assert play.queue.wait_s(True, "hog", play.now_s + 300.0) == pytest.approx(left_s, rel=0.2)
    assert play.queue.wait_s(True, "modest", play.now_s + 30.0) <= 0.26
    assert play.queue.wait_s(False, "modest", play.now_s + 5.0) == play.queue.backlog_s(False) == 0.0


def test_large_single_pictures_are_turned_away_when_they_would_wait_too_long() -> None:
    play = Play()
    play.post("first", 0.5, heavy=True)
    play.run()
    for number in range(10):
        play.post(str(number), 0.5, heavy=True, budget_s=2.0)
    play.post("of another client", 0.5, heavy=True, budget_s=2.0, client="modest")
    play.run(play.now_s + 0.01)
    assert "of another client" not in play.refused
    play.run()
    assert [name for _, name, _ in play.ran] == ["first", "of another client", "0", "1"]
    assert len(play.refused) == 8


def test_a_class_without_a_first_is_a_bug() -> None:
    queue = DecodeQueue(1)
    queue._backlogs[0].n_waiting = 2
    with pytest.raises(RuntimeError):
        queue.take(True)


def test_a_dropped_request_frees_everything_but_what_is_at_work() -> None:
    play = Play()
    request = play.post("slow", 0.25, 100)
    play.run(0.3)
    play.queue.drop(request)
    play.queue.drop(request)
    assert play.queue.backlog_s(True) == pytest.approx(0.25, rel=0.5)
    play.run()
    assert play.queue.backlog_s(True) == 0.0
    assert len(play.ran) == 2
