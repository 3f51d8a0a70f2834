"""The build backend: setuptools, but that in a wheel all packages lie under one name.

In the repository `service/`, `model/` and the others are top-level packages; in `site-packages` such names would meet those
of others. So a wheel is built from a copy of the tree, in which they are moved into `parseq_service/` and their imports of
each other follow. An editable install and the sdist have the tree as it is (docs/adr/0016-one-name-in-site-packages.md).

What is rewritten: the module of an import; strings that are the name of a module or of something in one
(`"model.data.convert"`, `"model.recognisers.crnn.network:Crnn"`); and `python -m` in texts. An import that this cannot
follow ends the build.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

TOP: Final = "parseq_service"
ROOMS: Final = ("artifact", "export", "model", "reading", "service")
OTHERS: Final = ("parseq_client", "pyproject.toml", "README.md", "LICENSE")
LEFT_OUT: Final = ("__pycache__", "*.pyc", "*.tensorrt", "*.egg-info", "weights")
INIT: Final = '"""The parts of parseq-service. What it is called with from Python is `parseq_client`."""\n'
_ROOM: Final = "|".join(ROOMS)
_NAME: Final = re.compile(rf"({_ROOM})(\.\w+)+(:\w+(\.\w+)*)?")
_RUN: Final = re.compile(rf"(python3? -m )(?=({_ROOM})\b)")
_SCRIPT: Final = re.compile(rf'^(parseq-[\w-]+ = ")(?=({_ROOM})\.)', re.M)


def build_wheel(
    wheel_directory: str, config_settings: Mapping[str, Any] | None = None, _metadata_directory: str | None = None
) -> str:
    """Build the wheel (PEP 517) of a copy of the tree."""
    target = str(Path(wheel_directory).resolve())
    with _moved_tree():
        return str(build_meta.build_wheel(target, _plain(config_settings)))


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Mapping[str, Any] | None = None) -> str:
    """The metadata of that wheel (PEP 517)."""
    target = str(Path(metadata_directory).resolve())
    with _moved_tree():
        return str(build_meta.prepare_metadata_for_build_wheel(target, _plain(config_settings)))


def _plain(settings: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if settings is None else dict(settings)


@contextmanager
def _moved_tree() -> Iterator[None]:
    """Work in a copy of the tree of the current folder with all rooms under one name."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        move(here, Path(name))
        os.chdir(name)
        try:
            yield
        finally:
            os.chdir(here)


def move(tree: Path, target: Path) -> None:
    """Copy a tree, the rooms into `parseq_service/`, all names following.

    Raises:
        ValueError: A module has an import that cannot be followed.
    """
    ignore = shutil.ignore_patterns(*LEFT_OUT)
    package = target / TOP
    package.mkdir()
    (package / "__init__.py").write_text(INIT, encoding="utf-8")
    (package / "py.typed").touch()
    for name in OTHERS:
        if (tree / name).is_dir():
            shutil.copytree(tree / name, target / name, ignore=ignore)
        elif (tree / name).exists():
            shutil.copy(tree / name, target / name)
    for room in (room for room in ROOMS if (tree / room).is_dir()):
        shutil.copytree(tree / room, package / room, ignore=ignore)
    modules = {".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")}
    names = modules | {module.removesuffix(".__init__") for module in modules}
    for path in package.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        path.write_text(renamed(source, names.__contains__, str(path.relative_to(package))), encoding="utf-8")
    project = target / "pyproject.toml"
    settings = project.read_text(encoding="utf-8")
    # The copy is an ordinary tree, which setuptools can build by itself.
    settings = re.sub(r"^(build-backend|backend-path) = .*$", "", settings, flags=re.M)
    project.write_text(_SCRIPT.sub(rf"\1{TOP}.", settings), encoding="utf-8")


def renamed(source: str, is_module: Callable[[str], bool], where: str) -> str:
    """The source of a module with the new names.

    Args:
        source: Of the module.
        is_module: Whether a dotted name, as in the repository, is one of ours.
        where: Named in errors.

    Raises:
        ValueError: `import room.module` binds the name of the room, and that is used.
    """
    nodes = list(ast.walk(ast.parse(source)))
    inside = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    places: list[tuple[int, int, str]] = []
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and not node.level and node.module and node.module.split(".")[0] in ROOMS:
            places.append((node.lineno, node.col_offset, node.module))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                room = alias.name.split(".")[0]
                if room not in ROOMS:
                    continue
                if alias.asname is None and room in used:
                    raise ValueError(
                        f"{where}:{node.lineno}: write `from {room} import ...`: the wheel cannot follow `{room}.`"
                    )
                places.append((alias.lineno, alias.col_offset, alias.name))
        elif isinstance(node, ast.Constant) and id(node) not in inside and _is_ours(node.value, is_module):
            places.append((node.lineno, node.col_offset, str(node.value)))
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    for line, column, name in sorted(places, reverse=True):
        at = lines[line - 1].index(name.encode(), column)
        lines[line - 1] = lines[line - 1][:at] + f"{TOP}.".encode() + lines[line - 1][at:]
    return _RUN.sub(rf"\1{TOP}.", b"".join(lines).decode())


def _is_ours(value: object, is_module: Callable[[str], bool]) -> bool:
    return isinstance(value, str) and bool(_NAME.fullmatch(value)) and is_module(value.partition(":")[0])
