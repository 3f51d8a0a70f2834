"""What is in the wheel and the sdist, and that it runs from there; `make verify-wheel` does it in an empty environment."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from release.wheel_backend import ROOMS, move, renamed
from tests.unit.test_architecture import PACKAGES
from tests.wheels import ROOT, build

MAX_BYTES = 9_000_000
# `tune` and `ray_actors` need Ray, which is in no environment of the tests.
IMPORT_ALL = """
import importlib, pkgutil, sys
import parseq_client, parseq_service
assert parseq_service.__file__.startswith(sys.argv[1]), parseq_service.__file__
names = [each.name for each in pkgutil.walk_packages(parseq_service.__path__, "parseq_service.")]
names = [name for name in names if not name.endswith(("tune", "ray_actors", "model.synth.__main__", "export.__main__"))]
for name in names:
    importlib.import_module(name)
print(len(names), sorted(set(sys.modules) & {"artifact", "export", "model", "reading", "service"}))
"""
SERVED = """
import sys
from parseq_service.service.config import BUNDLED_ARTIFACT
from parseq_service.model.recognisers.registry import recognisers
assert str(BUNDLED_ARTIFACT).startswith(sys.argv[1]) and BUNDLED_ARTIFACT.is_file()
assert len(recognisers()) >= 5
recognisers()["crnn"].build_network
from parseq_service.service.fronts.fork_server import MODULE
from parseq_service.service.process import logs
assert MODULE == "parseq_service.service.front"
print(logs.OURS)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(build("wheel", tmp_path_factory.mktemp("wheel"))) as found:
        yield found


@pytest.fixture(scope="module")
def installed(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    wheel.extractall(folder)
    return folder


def run(installed: Path, code: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", code, str(installed)]
    environment = {"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_its_names_are_its_own(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert tops == {"parseq_client", "parseq_service", "parseq_service-0.1.0.dist-info"}
    assert wheel.read("parseq_service-0.1.0.dist-info/top_level.txt").split() == [b"parseq_client", b"parseq_service"]
    scripts = configparser.ConfigParser()
    scripts.read_string(wheel.read("parseq_service-0.1.0.dist-info/entry_points.txt").decode())
    names = set(wheel.namelist())
    for script, target in scripts["console_scripts"].items():
        assert f"{target.partition(':')[0].replace('.', '/')}.py" in names, script


def test_it_has_what_is_served_and_nothing_of_training_or_tests(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "parseq_service/service/bundled/parseq-mini.onnx" in names
    assert "parseq_service/service/bundled/page/index.html" in names
    assert {Path(name).suffix for name in names} <= {
        ".py", ".onnx", ".js", ".css", ".html", ".yaml", ".typed", ".txt", "",
    }  # fmt: skip
    assert not [name for name in names if {"weights", "tests", "gpu", "benchmarks", "docker", "release"} & set(name.split("/"))]
    assert sum(entry.compress_size for entry in wheel.infolist()) < MAX_BYTES


@pytest.mark.slow
def test_every_module_finds_the_others_under_their_new_names(installed: Path) -> None:
    n_modules, old = run(installed, IMPORT_ALL).splitlines()[-1].split(" ", 1)
    assert int(n_modules) > 200
    assert old == "[]"


def test_what_is_found_by_a_string_or_a_path_is_found(installed: Path) -> None:
    assert run(installed, SERVED).splitlines()[-1] == "parseq_service.service"


def test_an_sdist_builds_the_same_wheel(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        archive.extractall(tmp_path, filter="data")
    with zipfile.ZipFile(build("wheel", tmp_path, tmp_path / "parseq_service-0.1.0")) as other:
        assert sorted(other.namelist()) == sorted(wheel.namelist())


def test_the_rooms_are_those_of_the_architecture() -> None:
    assert set(ROOMS) == set(PACKAGES) - {"parseq_client"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from service.http import app", "from parseq_service.service.http import app"),
        ("import model.data as data, os", "import parseq_service.model.data as data, os"),
        ('run("model.data")', 'run("parseq_service.model.data")'),
        ('run("model.data:load")', 'run("parseq_service.model.data:load")'),
        ('é = "é", "model.data"', 'é = "é", "parseq_service.model.data"'),
        ('"see python -m model.synth"', '"see python -m parseq_service.model.synth"'),
        ('metric("model.other"), model.data, "model"', 'metric("model.other"), model.data, "model"'),
        ("from .data import x", "from .data import x"),
        ("from modelled import x", "from modelled import x"),
    ],
)
def test_what_is_rewritten(before: str, after: str) -> None:
    assert renamed(before, {"model.data", "service.http"}.__contains__, "here.py") == after


def test_an_import_that_cannot_be_followed_ends_the_build(tmp_path: Path) -> None:
    """In a tree of two modules."""
    source, target = tmp_path / "from", tmp_path / "to"
    (source / "model").mkdir(parents=True)
    (source / "model" / "data.py").touch()
    (source / "model" / "other.py").write_text("from model.data import x\n")
    shutil.copy(ROOT / "pyproject.toml", source)
    target.mkdir()
    move(source, target)
    assert not (target / "model").exists()
    assert (target / "parseq_service" / "model" / "other.py").read_text() == "from parseq_service.model.data import x\n"
    shutil.rmtree(target)
    target.mkdir()
    (source / "model" / "other.py").write_text("import model.data\nmodel.data.x()")
    with pytest.raises(ValueError, match=r"model/other.py:1: write `from model import"):
        move(source, target)


def test_the_repository_has_the_same_names() -> None:
    from parseq_service.artifact import text as same

    from artifact import text

    assert same is text
    assert text.__spec__.name == "artifact.text"
    with pytest.raises(ModuleNotFoundError):
        __import__("parseq_service.tests")
