"""What a sweep found, kept beside the artifact for the next start. A cache that cannot be used is no error: tune again."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from artifact.files import write_whole
from service.sessions.topology import Candidate, Sweep

logger = logging.getLogger(__name__)

VERSION: Final = 2
"""Of the file and of how sweeps are made: another one is tuned again."""
USER_FOLDER: Final = "parseq-service"


@dataclass(frozen=True, slots=True)
class TuningKey:
    """All that the outcome of a sweep depends on."""

    artifact_bytes: int
    artifact_mtime_ns: int
    onnxruntime: str
    provider: str
    devices: tuple[int, ...]
    cpu_model: str
    cpu_budget: int
    lanes: int
    """As set; 0: open."""
    intra_op_threads: int
    """As set; 0: open."""
    max_batch_size: int
    """As set; 0: open."""


def cache_folders(artifact: Path) -> list[Path]:
    """Where something about an artifact may be kept: beside it, or in the user's cache folder if that is read-only."""
    folders = [artifact.parent]
    user_cache = os.environ.get("XDG_CACHE_HOME")
    if user_cache:
        folders.append(Path(user_cache) / USER_FOLDER)
    else:
        try:
            folders.append(Path.home() / ".cache" / USER_FOLDER)
        except RuntimeError:  # a user without a home
            logger.debug("no home folder, so no cache folder in it")
    return folders


def tuning_files(artifact: Path) -> list[Path]:
    """Where the outcome of a sweep may be, the preferred place first."""
    return [folder / f"{artifact.name}.tuning.json" for folder in cache_folders(artifact)]


def load_tuning(
    files: list[Path], key: TuningKey, options: Collection[Candidate], wide: Candidate | None, sizes: Collection[int]
) -> Sweep | None:
    """What was found for `key`, `None` when it must be measured.

    Args:
        files: Where to look, the preferred place first.
        key: Of this start.
        options: What would be measured now; a file that names anything else is no help.
        wide: What a crop that is alone may run with, if there is a choice.
        sizes: Of batches, that would be measured now.
    """
    for file in files:
        try:
            content = json.loads(file.read_text())
            if content["version"] != VERSION or content["key"] != _plain(key):
                continue
            found = _parse(content["found"])
            _check_possible(found, options, wide, sizes)
            return found
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            logger.warning("%s cannot be used (%s), tuning again", file, type(error).__name__)
    return None


def save_tuning(files: list[Path], key: TuningKey, found: Sweep) -> Path | None:
    """Keep what was found in the first place that can be written; `None` when there is none."""
    content = {
        "version": VERSION,
        "key": _plain(key),
        "found": {
            "lanes": found.candidate.lanes,
            "intra_op_threads": found.candidate.intra_op_threads,
            "alone_threads": found.candidate.alone_threads,
            "durations_s": found.durations_s,
        },
    }
    for file in files:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(content, indent=1).encode())
        except OSError:
            continue
        return file
    return None


def _plain(key: TuningKey) -> object:
    """The key as it looks after a journey through JSON."""
    return json.loads(json.dumps(asdict(key)))


def _check_possible(found: Sweep, options: Collection[Candidate], wide: Candidate | None, sizes: Collection[int]) -> None:
    """Raise `ValueError` unless a sweep could have found this."""
    chosen = found.candidate
    may_be_alone = {0, wide.intra_op_threads} if wide is not None and wide.lanes != chosen.lanes else {0}
    if replace(chosen, alone_threads=0) not in options or chosen.alone_threads not in may_be_alone:
        raise ValueError("not one of the options")
    if not set(found.durations_s) <= set(sizes):
        raise ValueError("not sizes that are measured")


def _parse(found: dict[str, object]) -> Sweep:
    """Read a sweep back.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is not one.
    """
    lanes, threads, alone_threads = found["lanes"], found["intra_op_threads"], found["alone_threads"]
    durations_s = found["durations_s"]
    if not (isinstance(lanes, int) and isinstance(threads, int) and isinstance(alone_threads, int)):
        raise TypeError("not a candidate")
    if not isinstance(durations_s, dict):
        raise TypeError("not a sweep")
    candidate = Candidate(lanes, threads, alone_threads)
    sweep = Sweep(candidate, {int(size): float(seconds) for size, seconds in durations_s.items()})
    possible = all(size >= 1 and 0 < seconds < math.inf for size, seconds in sweep.durations_s.items())
    if lanes < 1 or threads < 1 or alone_threads < 0 or not sweep.durations_s or not possible:
        raise ValueError("impossible numbers")
    return sweep
