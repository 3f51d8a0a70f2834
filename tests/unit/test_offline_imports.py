"""`model/` knows nothing of ONNX or HTTP, and neither it nor `export/` of the service."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "model": {"export", "service", "onnx", "onnxruntime", "httpx", "fastapi", "starlette", "uvicorn"},
    "export": {"service", "fastapi", "starlette", "uvicorn"},
}


def imported(path: Path) -> set[str]:
    """The top packages of all imports in a module, those inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", list(FORBIDDEN))
def test_programs_keep_to_themselves(package: str) -> None:
    modules = list((ROOT / package).rglob("*.py"))
    assert len(modules) > 20
    found = {str(path.relative_to(ROOT)): imported(path) & FORBIDDEN[package] for path in modules}
    assert {name: names for name, names in found.items() if names} == {}
