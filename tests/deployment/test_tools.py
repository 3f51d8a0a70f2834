"""The tools are found, fetched once, and never silently missing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.deployment import tools
from tests.deployment.tools import Source, Tool, ToolMissingError

SCRIPT = "#!/bin/sh\necho toy {version}\n"


def write_program(path: Path, version: str) -> None:
    path.write_text(SCRIPT.format(version=version))
    path.chmod(0o755)


def no_network(_folder: Path) -> None:
    raise ToolMissingError("no network")


def toy(fetch: Callable[[Path], None] = no_network) -> Tool:
    source = Source("toys", fetch)
    return Tool((("toy-tool",),), ("--version",), r"^toy 2\.", source, "toy-tool", "install toy 2")


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


@pytest.mark.parametrize("name", tools.TOOLS)
def test_every_tool_is_there_and_works(name: str) -> None:
    words = tools.command(name)
    assert tools._complaint(words, tools.TOOLS[name]) is None


def test_an_installed_one_comes_first(on_path: Path, tmp_path: Path) -> None:
    write_program(on_path / "toy-tool", "2.1")
    assert tools.find("toy", toy(), tmp_path / "cache") == ("toy-tool",)


def test_one_that_is_too_old_is_passed_over(on_path: Path, tmp_path: Path) -> None:
    write_program(on_path / "toy-tool", "1.29")
    tool = toy(lambda folder: write_program(folder / "toy-tool", "2.0"))
    assert tools.find("toy", tool, tmp_path / "cache") == (str(tmp_path / "cache" / "toys" / "toy-tool"),)


def test_a_tool_that_cannot_be_had_is_an_error_that_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ToolMissingError, match=r"toy is not on the PATH.*install toy 2(?s:.*)no network"):
        tools.find("toy", toy(), tmp_path)
    assert not (tmp_path / "toys").exists()


def test_tests_fetch_nothing_and_say_what_does(tmp_path: Path) -> None:
    fetched = toy(lambda folder: write_program(folder / "toy-tool", "2.0"))
    with pytest.raises(ToolMissingError, match=r"^toy is not on the PATH.*`make tools`.*install toy 2$"):
        tools.find("toy", fetched, tmp_path, fetch=False)
    assert not any(tmp_path.iterdir())
    words = tools.find("toy", fetched, tmp_path)
    assert tools.find("toy", fetched, tmp_path, fetch=False) == words


def test_a_fetched_one_that_does_not_run_is_an_error(tmp_path: Path) -> None:
    tool = toy(lambda folder: write_program(folder / "toy-tool", "1.0"))
    with pytest.raises(ToolMissingError, match=r"does not work here: install toy 2"):
        tools.find("toy", tool, tmp_path)


def test_it_is_fetched_once_however_many_ask(tmp_path: Path) -> None:
    fetched = []

    def fetch(folder: Path) -> None:
        fetched.append(folder)
        write_program(folder / "toy-tool", "2.0")

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: tools.find("toy", toy(fetch), tmp_path), range(8)))
    assert len(found) == len(fetched) == 1
