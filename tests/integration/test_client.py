"""The client against the service itself, and the examples of its documentation."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifact.files import BUNDLED_MODEL
from parseq_client import AsyncClient, Client, NotFoundError, UnauthorizedError
from service.config import BUNDLED_ARTIFACT
from tests.integration.server import ServerProcess, running

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "docs" / "samples"
EXAMPLES = re.findall(r"<!-- run -->\n```python\n(.*?)```", (ROOT / "docs" / "client.md").read_text(), re.S)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("client")
    (folder / "keys").write_text("open-sesame-open-sesame\n")
    with running(
        BUNDLED_ARTIFACT, folder / "log", forked=True, api_keys_file=folder / "keys", max_crops_per_request=3, max_regions=2
    ) as found:
        yield found


def test_all_options_of_a_real_service(server: ServerProcess) -> None:
    with Client(server.url, api_key="open-sesame-open-sesame") as client:  # pragma: allowlist secret
        assert client.is_ready()
        assert client.is_alive()
        client.wait_until_ready()
        [model] = client.models()
        assert (client.limits().max_crops_per_request, client.charset(model)) == (3, model.charset)
        result = client.read(
            SAMPLES / "price.png", model=model.name, characters=True, alternatives=3, charset="digits,chars:.$",
            orientation="auto", split="auto",
        )  # fmt: skip
        assert (result.text, result.angle, result.model) == ("$12.50", 0, model.name)
        assert "".join(each.char for each in result.characters) == result.alternatives[0].text == "$12.50"
        assert result.confidence == pytest.approx(result.alternatives[0].confidence)
        many = client.read_many([SAMPLES / "harbour.png", b"no image", SAMPLES / "bakery.png", SAMPLES / "price.png", b""])
        assert [each.text for each in many][0::2] == ["HARBOUR", many[2].text, ""]
        assert [each.error.slug if each.error else None for each in many] == [
            None, "unreadable-image", None, None, "unreadable-image",
        ]  # fmt: skip
        found = client.read_regions(SAMPLES / "harbour.png", [(0, 0, 176, 39), (0, 0, 0, 0), (0, 0, 176, 39)])
        assert [each.ok for each in found] == [True, False, True]
        with pytest.raises(NotFoundError, match=BUNDLED_MODEL):
            client.read(SAMPLES / "price.png", model="other")
    with Client(server.url) as client, pytest.raises(UnauthorizedError):
        client.read(b"x")


def test_the_asynchronous_client_reads_the_same(server: ServerProcess) -> None:
    async def read() -> list[str]:
        async with AsyncClient(server.url, api_key="open-sesame-open-sesame") as client:  # pragma: allowlist secret
            assert await client.is_ready()
            many = await client.read_many([SAMPLES / "harbour.png"] * 7)
            [region] = await client.read_regions(SAMPLES / "harbour.png", [(0, 0, 176, 39)])
            return [each.text for each in [*many, region]]

    assert asyncio.run(read()) == ["HARBOUR"] * 8


def test_the_examples_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert len(EXAMPLES) == 4
    with running(BUNDLED_ARTIFACT, tmp_path / "log", forked=True) as server:
        for example in EXAMPLES:
            written = io.StringIO()
            with contextlib.redirect_stdout(written):
                exec(compile(example.replace("http://localhost:8000", server.url), "client.md", "exec"), {})
            assert re.search("HARBOUR|12.50", written.getvalue()), example
