"""Who may import whom, how large a package may be, and whether the page on the architecture is up to date.

Read from the source: imports within functions and those for type checkers only count as well.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("artifact", "export", "model", "parseq_client", "reading", "service")
MAX_FILES = 14
"""Of a package, `__init__.py` apart."""
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

BELOW: Mapping[str, frozenset[str]] = {
    name: frozenset(below.split())
    for name, below in {
        "artifact": "",
        "parseq_client": "",
        "model": "artifact.download artifact.files artifact.fit artifact.text",
        "export": "artifact model",
        "reading": "artifact model export",
        "service.process": "",
        "service.errors": "",
        "service.config": "artifact service.process service.errors",
        "service.engine": "artifact service.process service.errors service.config",
        "service.sessions": "artifact service.process service.errors service.config service.engine",
        "service.images": "artifact service.process service.errors service.config service.engine",
        "service.tracing": "service.process service.errors",
        "service.core": "artifact service.process service.errors service.config service.engine service.sessions service.images "
        "service.tracing",
        "service.fronts": "artifact service.process service.errors service.config service.engine service.sessions "
        "service.images service.tracing service.core",
        "service": "artifact service",
    }.items()
}
"""What each layer may import besides itself; a module belongs to the longest name that it begins with."""

HTTP = frozenset({"fastapi", "starlette", "uvicorn", "httptools", "httpx", "python_multipart"})
GRPC = frozenset({"grpc", "google"})
FORBIDDEN: Mapping[str, frozenset[str]] = {
    "service": frozenset({"torch", "onnx", "safetensors", "lightning"}),
    "service.process": HTTP | GRPC,
    "service.errors": HTTP | GRPC,
    "service.config": HTTP | GRPC,
    "service.engine": HTTP | GRPC | {"PIL", "pydantic", "pydantic_settings", "onnxruntime"},
    "service.sessions": HTTP | GRPC,
    "service.images": HTTP | GRPC,
    "service.tracing": HTTP | {"grpc"},
    "service.core": HTTP | GRPC,
    "service.fronts": HTTP | GRPC,
    "service.http": GRPC,
    "service.__main__": GRPC,
    "model": frozenset({"onnx", "onnxruntime"}) | HTTP,
    "export": HTTP,
}
"""Libraries that a layer must do without."""
ONLY: Mapping[str, frozenset[str]] = {
    "artifact": frozenset({"numpy", "PIL", "onnxruntime"}),
    "parseq_client": frozenset({"httpx"}),
}
"""Layers that may have these libraries and no other."""


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


def imported(path: Path) -> Iterator[str]:
    """All that a module imports: our modules by their full names, of libraries whatever name stands there."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


@functools.cache
def all_imports() -> dict[str, frozenset[str]]:
    """Of each module; read when a test asks, since whoever collects tests would wait for it."""
    return {name: frozenset(imported(path)) - {name} for name, path in MODULES.items()}


def is_in(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}.")


def layer_of(name: str) -> str:
    return max((layer for layer in BELOW if is_in(name, layer)), key=len)


def upward(name: str, imports: Iterable[str]) -> list[str]:
    """What a module imports of ours that is neither in its layer nor in one below."""
    layer = layer_of(name)
    ours = [each for each in imports if each.split(".")[0] in PACKAGES]
    return [each for each in ours if layer_of(each) != layer and not any(is_in(each, below) for below in BELOW[layer])]


def libraries(imports: Iterable[str]) -> set[str]:
    tops = {each.split(".")[0] for each in imports}
    return tops - set(PACKAGES) - set(sys.stdlib_module_names)


def circles(graph: Mapping[str, set[str]]) -> set[str]:
    """The nodes of circles and of ways between them: those left when what has no successor or no predecessor is taken away."""
    left = set(graph)
    while True:
        followed = {successor for node in left for successor in graph[node]}
        inside = {node for node in left & followed if graph[node] & left}
        if inside == left:
            return left
        left = inside


def siblings(package: str, imports: Mapping[str, frozenset[str]]) -> dict[str, set[str]]:
    """Which of a package's files and packages imports which other one."""
    depth = package.count(".") + 1 if package else 0
    child = {name: ".".join(name.split(".")[: depth + 1]) for name in imports if not package or is_in(name, package)}
    graph: dict[str, set[str]] = {}
    for name in child:
        if name != package:
            graph.setdefault(child[name], set()).update(
                child[each] for each in imports[name] if each in child and each != package
            )
    return {node: successors - {node} for node, successors in graph.items()}


def test_the_test_sees_circles_and_arrows_up() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == {"b", "c"}
    assert siblings("p", {"p.a": frozenset({"p.q.x"}), "p.q.x": frozenset(), "p.q.y": frozenset({"p.a"})}) == {
        "p.a": {"p.q"},
        "p.q": {"p.a"},
    }
    assert upward("service.engine.queue", ["service.core.models", "artifact.text", "numpy"]) == ["service.core.models"]
    assert upward("artifact.text", ["service"]) == ["service"]
    assert "service.errors" in all_imports()["service.core.recognizer"]


def test_no_import_goes_up() -> None:
    found = {name: upward(name, imports) for name, imports in all_imports().items()}
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize("package", ["", *sorted(name for name, path in MODULES.items() if path.name == "__init__.py")])
def test_no_circle_among_the_files_and_packages_of(package: str) -> None:
    assert circles(siblings(package, all_imports())) == set()


def test_layers_do_without_some_libraries() -> None:
    found = {
        f"{name} ({layer})": libraries(imports) & libraries_forbidden
        for name, imports in all_imports().items()
        for layer, libraries_forbidden in FORBIDDEN.items()
        if is_in(name, layer)
    }
    assert {name: names for name, names in found.items() if names} == {}


def test_one_room_alone_knows_opentelemetry() -> None:
    found = {layer_of(name) for name, imports in all_imports().items() if "opentelemetry" in libraries(imports)}
    assert found == {"service.tracing"}


def test_training_loads_no_onnxruntime_by_way_of_the_contract() -> None:
    reached, waiting = set[str](), [name for name in MODULES if is_in(name, "model")]
    while waiting:
        reached.add(name := waiting.pop())
        waiting += [each for each in all_imports()[name] if each in MODULES and is_in(each, "artifact") and each not in reached]
    assert any(is_in(name, "artifact") for name in reached)
    assert not [name for name in reached if "onnxruntime" in libraries(all_imports()[name])]


def test_front_processes_load_no_onnxruntime() -> None:
    code = "import service.front, sys; print('onnxruntime' in sys.modules, 'fastapi' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("layer", list(ONLY))
def test_layers_with_few_libraries(layer: str) -> None:
    found = {name: libraries(imports) - ONLY[layer] for name, imports in all_imports().items() if is_in(name, layer)}
    assert {name: names for name, names in found.items() if names} == {}


def test_loggers_of_ours_are_named_after_modules() -> None:
    # In the wheel, modules have longer names; what is logged by another name is not shown.
    named = re.compile(rf"getLogger\(['\"]({'|'.join(PACKAGES)})\b")
    assert not [name for name, path in MODULES.items() if named.search(path.read_text(encoding="utf-8"))]


def test_no_package_has_too_many_files() -> None:
    n_files = {path.parent: 0 for path in MODULES.values()}
    for path in MODULES.values():
        n_files[path.parent] += path.name != "__init__.py"
    assert {str(folder.relative_to(ROOT)): n for folder, n in n_files.items() if n > MAX_FILES} == {}


def defined_names() -> Iterator[str]:
    """The classes, functions and methods of the packages: plain names, and those of methods and fields with their class."""
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                yield from (f"{node.name}.{each.name}" for each in node.body if isinstance(each, FUNCTION))
                fields = (each.target for each in node.body if isinstance(each, ast.AnnAssign))
                yield from (f"{node.name}.{field.id}" for field in fields if isinstance(field, ast.Name))
                yield node.name
            elif isinstance(node, FUNCTION):
                yield node.name
            elif isinstance(node, ast.Assign):
                yield from (target.id for target in node.targets if isinstance(target, ast.Name))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield node.target.id


def unknown_names(page: str) -> set[str]:
    """What a page has in backticks that is neither a file, folder, package, command nor name of this project."""
    folders = [
        ROOT,
        *(ROOT / package for package in PACKAGES),
        ROOT / "service" / "http",
        ROOT / "service" / "http" / "dialects",
    ]
    commands = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    parts = {part for path in MODULES.values() for part in path.relative_to(ROOT).with_suffix("").parts}
    known = {*defined_names(), *commands, *parts}
    return {
        name
        for name in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))
        if name.removesuffix("/") not in known and not any((folder / name).exists() for folder in folders)
    } - {"/v1/recognize"}


def test_the_names_on_the_architecture_page_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert unknown_names(page) == set()
    assert unknown_names(page.replace("`text_of`", "`text_from`").replace("`http/app.py`", "`http/apps.py`")) == {
        "text_from",
        "http/apps.py",
    }


def test_no_program_beside_the_rooms_hides_one_of_them() -> None:
    # `docker/verify_images` is run as a folder and also looks into the root: of two modules with one name, one is not found.
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms > {"artifact", "model", "export", "service", "reading"}
    assert not rooms & {path.stem for path in (ROOT / "docker").rglob("*.py")}
