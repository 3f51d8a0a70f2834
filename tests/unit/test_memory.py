from __future__ import annotations

import math
from pathlib import Path

import pytest

from service.process.cgroup import cgroup_folders
from service.process.cpu import cpu_budget
from service.process.memory import memory_limit_bytes


@pytest.mark.parametrize(
    ("files", "limit_bytes"),
    [
        ({"memory.max": "805306368\n"}, 805306368),
        ({"memory.max": "max\n"}, math.inf),
        ({"memory/memory.limit_in_bytes": "805306368\n"}, 805306368),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, math.inf),
        ({"memory.max": "nonsense"}, math.inf),
        ({}, math.inf),
    ],
)
def test_the_limit_is_the_containers(tmp_path: Path, files: dict[str, str], limit_bytes: float) -> None:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    assert memory_limit_bytes([tmp_path]) == limit_bytes


@pytest.mark.parametrize(
    ("membership", "folders"),
    [
        ("0::/\n", ["."]),
        ("0::/system.slice/parseq.service\n", ["system.slice/parseq.service", "system.slice", "."]),
        ("12:memory:/docker/abc\n0::/a b\n", ["a b", "."]),
        ("12:memory:/docker/abc\n", ["."]),
        ("0::/../../other\n", ["."]),
        (None, ["."]),
    ],
)
def test_the_limits_of_all_groups_above_a_process_hold(tmp_path: Path, membership: str | None, folders: list[str]) -> None:
    file = tmp_path / "cgroup"
    if membership is not None:
        file.write_text(membership)
    assert cgroup_folders(tmp_path, file) == [tmp_path / folder for folder in folders]


def test_the_smallest_limit_of_memory_and_cores_holds(tmp_path: Path) -> None:
    for folder, memory, cores in (
        (tmp_path, "max", "max 100000"),
        (tmp_path / "a", "1000", "100000 100000"),
        (tmp_path / "b", "2000", "max"),
    ):
        folder.mkdir(exist_ok=True)
        (folder / "memory.max").write_text(memory)
        (folder / "cpu.max").write_text(cores)
    assert memory_limit_bytes([tmp_path / "b", tmp_path / "a", tmp_path]) == 1000
    assert cpu_budget([tmp_path / "b", tmp_path / "a", tmp_path]) == 1
