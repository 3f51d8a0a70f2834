from __future__ import annotations

import math
from pathlib import Path

import pytest

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
    assert memory_limit_bytes(tmp_path) == limit_bytes
