"""The reads of one crop that is read in several ways: which there are, what follows from them, and when the crop is done.

The crop itself is the leader, an item that was admitted; all other reads are its followers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image

from artifact.fit import fit_for
from artifact.metadata import ArtifactMetadata
from artifact.orientation import Orientation
from artifact.text import Reading
from artifact.views import AS_IT_IS, Found, Views
from service.engine.types import Crop, CropEngine, Item, Outcome

REASONS: Final = ("turned", "upside_down", "word", "window")


@dataclass(frozen=True, slots=True)
class Ways:
    """In which ways the crops of a request are read, and whom that concerns."""

    orientation: Orientation
    split: bool
    metadata: ArtifactMetadata
    engine: CropEngine
    reading_of: Callable[[Item], Reading | None]
    """What an item that has ended says; `None`: it failed."""
    count: Callable[[str], None]
    """Told the reason of each extra read."""


class Inquiry:
    """The reads of one crop. `prepare` is called on the thread that decodes; all else on the event loop.

    Args:
        ways: Of its request.
        done: Called with the leader when all reads have ended.
        over: Tells whether nobody waits for the crop any more.
    """

    def __init__(self, ways: Ways, done: Callable[[Item], None], over: Callable[[], bool]) -> None:
        self._ways = ways
        self._done = done
        self._over = over
        self._views: Views | None = None
        self._crops: list[Crop] = []
        self._items: dict[int, Item] = {}
        """By index of the view: what has been asked for so far."""
        self._left = 1
        """Items that have not ended; at first the leader."""

    def prepare(self, leader: Item, picture: Image.Image) -> tuple[Crop, list[Item]]:
        """Make the views of a decoded picture: its own crop, and the followers to be queued after it."""
        views = Views(picture, self._ways.orientation, self._ways.split)
        self._crops = [fit_for(self._ways.metadata, view) for view in views.pictures]
        views.pictures.clear()
        self._items = {AS_IT_IS: leader}
        followers = self._followers(leader, views, [index for index in views.wanted({}) if index != AS_IT_IS])
        self._left = 1 + len(followers)
        self._views = views
        return self._crops[AS_IT_IS], followers

    def item_settled(self, item: Item) -> None:
        """One of the reads has ended; when it was the last one, find out what to read next."""
        self._left -= 1
        if self._left:
            return
        leader = self._items.get(AS_IT_IS, item)
        if self._views is not None and leader.outcome is Outcome.DONE and not self._over():
            wanted = self._views.wanted({index: self._ways.reading_of(each) for index, each in self._items.items()})
            if wanted:
                followers = self._followers(leader, self._views, wanted)
                self._left = len(followers)
                self._ways.engine.follow(leader, followers)
                return
        self._done(leader)

    def found(self) -> Found | None:
        """What was read, also if some reads have not ended or have failed. Afterwards all is forgotten."""
        readings = {index: self._ways.reading_of(each) for index, each in self._items.items()}
        self._items.clear()  # items and this hold each other
        self._crops.clear()
        return None if self._views is None else self._views.found(readings)

    def _followers(self, leader: Item, views: Views, wanted: Sequence[int]) -> list[Item]:
        followers = []
        for index in wanted:
            item = Item(leader.deadline_s, self.item_settled, leader.bulk, leader.client, crop=self._crops[index])
            item.is_follower, item.exemplar = True, leader.exemplar
            item.allowed, item.wants_top = leader.allowed, leader.wants_top
            self._items[index] = item
            self._ways.count(views.reasons[index])
            followers.append(item)
        return followers
