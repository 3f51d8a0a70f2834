"""A real Chromium and a real server with the bundled model, for all tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from service.config import BUNDLED_ARTIFACT
from tests.integration.server import ServerProcess, running

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Skips where there is no Chromium: `make chromium` installs one.

    Of a module, not of all: while it is there, an event loop runs in this thread, and no other test could start one.
    """
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, NAMES)), None)
        try:
            # Without its sandbox, because it refuses to start with one for root, as in a container.
            started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    with running(BUNDLED_ARTIFACT, folder / "log", forked=True) as started:
        yield started


@pytest.fixture
def page(browser: Any, server: ServerProcess) -> Iterator[Any]:
    """The page in a window of its own. The test fails if a script fails, or if anything breaks the page's policy."""
    context = browser.new_context(viewport={"width": 900, "height": 900}, accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: "Content Security Policy" in message.text and wrong.append(message.text))
    opened.goto(server.url)
    yield opened
    context.close()
    assert wrong == []
