"""Broken files through the decoder, one after the other, in this process."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from artifact.fit import fit
from service.errors import Problem
from service.images.decode import decode_image
from service.images.limits import ImageLimits
from tests.fuzz.memory import Memory

CHECK_EVERY = 1000


@dataclass
class Report:
    """What became of the files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest: int = -1
    memory: Memory = field(default_factory=Memory)

    def __str__(self) -> str:
        seen = ", ".join(f"{outcome} {count}" for outcome, count in self.outcomes.most_common())
        return f"{self.outcomes.total()} files: {seen}; slowest {self.slowest_s:.2f} s (number {self.slowest}); {self.memory}"


def read(data: bytes, limits: ImageLimits) -> str:
    """How a file is answered; any error but a `Problem` is a bug and is raised."""
    try:
        crop = fit(decode_image(data, limits), 32, 128)
    except Problem as problem:
        return problem.kind.slug if problem.status < 500 else f"{problem.status}!"
    assert crop.shape == (32, 128, 3)
    return "read"


def is_fault(outcome: str) -> bool:
    """Whether this outcome of `read` is no fault of the file."""
    return outcome.endswith("!")


def read_all(numbers: Iterable[int], file: Callable[[int], bytes]) -> Report:
    """Read the files of these numbers; a file that breaks the decoder is named by its number."""
    report, limits, number = Report(), ImageLimits(), 0
    for number in numbers:
        data, started_s = file(number), time.process_time()
        try:
            report.outcomes[read(data, limits)] += 1
        except BaseException as error:
            error.add_note(f"file number {number}")
            raise
        duration_s = time.process_time() - started_s
        if duration_s > report.slowest_s:
            report.slowest_s, report.slowest = duration_s, number
        if number % CHECK_EVERY == 0:
            report.memory.look(number)
    report.memory.look(number)
    return report
