"""The page at `/` and its files, as they are served. What they do in a browser is in tests/browser."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import re
import tomllib
from pathlib import Path

import httpx
import pytest

from artifact.files import BUNDLED_MODEL
from service.http.dialects.v1_query import READING
from service.http.dialects.v1_schemas import Limits, ModelInfo
from service.http.page import FOLDER, MEDIA_TYPES, policy_of
from tests.fakes import toy_runtime, with_client

ROOT = Path(__file__).parents[2]
HTML = (FOLDER / "index.html").read_text(encoding="utf-8")
CSS = (FOLDER / "page.css").read_text(encoding="utf-8")
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.js")}
INLINE = re.findall(r"<script>(.*?)</script>", HTML, re.S)
LIGHT, DARK = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", rules)) for rules in re.findall(r":root \{(.*?)\}", CSS, re.S))


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2.2 defines it, of `#rrggbb`."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_all_files_are_served_and_packed() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        addresses = {"/": (FOLDER / "index.html", "text/html")}
        addresses |= {
            f"/page/{path.name}": (path, MEDIA_TYPES[path.suffix]) for path in FOLDER.iterdir() if path.suffix != ".html"
        }
        assert len(addresses) == len(list(FOLDER.iterdir()))
        for address, (path, media_type) in addresses.items():
            response = await client.get(address)
            assert response.content == path.read_bytes()
            assert response.headers["content-type"] == f"{media_type}; charset=utf-8"
            head = await client.head(address)
            assert (head.status_code, head.content) == (200, b"")
            guards = ("content-length", "content-type", "x-content-type-options", "cache-control")
            assert [head.headers[name] for name in guards] == [response.headers[name] for name in guards]
        for address in ("/page/index.html", "/page/", f"/page/..%2f{BUNDLED_MODEL}.onnx", "/page/no.js"):
            assert (await client.get(address)).status_code == 404
        assert (await client.post("/page/page.js")).status_code == 405

    with_client(toy_runtime(), scenario)
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    for path in FOLDER.iterdir():
        assert any(fnmatch.fnmatch(str(path.relative_to(ROOT / "service")), pattern) for pattern in packed)


def test_the_policy_lets_in_the_page_own_files_and_nothing_else() -> None:
    rules = dict(rule.split(" ", 1) for rule in policy_of(HTML).split("; "))
    [script] = INLINE
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'self' 'sha256-{digest}'",
        "style-src": "'self'",
        "img-src": "blob:",
        "connect-src": "'self'",
        "base-uri": "'self'",
        "form-action": "'none'",
    }
    # What it would not let in.
    assert re.findall(r"<style|<[^>]*\sstyle=|<[^>]*\son\w+=", HTML) == []


@pytest.mark.parametrize("name", ["index.html", "page.css", *SCRIPTS])
def test_nothing_is_from_elsewhere_and_all_addresses_are_relative(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text) == []
    addresses = re.findall(r"""(?:href|src)="([^"]+)"|from "([^"]+)"|url\(([^)]+)\)""", text)
    for address in ("".join(found) for found in addresses):
        assert not address.startswith("/")
        assert address == "docs" or (FOLDER / address.removeprefix("page/")).is_file()
    assert re.findall(r"""(?:fetch|ask)\(["`]/""", text) == []


def test_scripts_name_only_what_the_page_has() -> None:
    ids = re.findall(r'\bid="([^"]+)"', HTML)
    assert len(ids) == len(set(ids))
    named = {found for text in SCRIPTS.values() for found in re.findall(r"""(?:byId|getElementById)\("([^"]+)"\)""", text)}
    named |= {f"editor-{found}" for found in re.findall(r'\bpart\("([^"]+)"\)', SCRIPTS["regions.js"])}
    assert named - set(ids) == set()
    assert set(re.findall(r'(?:for|aria-describedby|aria-labelledby)="([^"]+)"', HTML)) <= set(ids)


def test_the_page_knows_every_option_of_the_interface() -> None:
    told = re.search(r"for \(const name of (\[.*?\])\)", SCRIPTS["options.js"])
    assert told is not None
    assert set(re.findall(r'"(\w+)"', told[1])) == set(READING)
    for name, parameter in READING.items():
        select = re.search(rf'<select id="{name}".*?</select>', HTML, re.S)
        assert select is not None
        offered = set(re.findall(r'<option value="([^"]+)"', select[0]))
        assert offered <= {*parameter.schema.get("enum", offered)}
        for value in offered - {"chars:"}:
            parameter.read(value)
    members = set(re.findall(r"\bmodel\.(\w+)", SCRIPTS["options.js"])) | {"charset", "charset_size"}
    assert members <= set(ModelInfo.model_fields)
    assert set(re.findall(r"limits\(\)\?\.(\w+)", SCRIPTS["page.js"])) <= set(Limits.model_fields)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_is_that_of_wcag_aa(colours: dict[str, str]) -> None:
    assert set(LIGHT) == set(DARK)
    for ground in ("ground", "panel"):
        for name in ("text", "note", "accent", "sure", "fair", "doubtful"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
        assert contrast(colours["edge"], colours[ground]) >= 3, ground
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5


def test_less_than_sure_is_not_told_by_colour_alone() -> None:
    lines = dict(re.findall(r"\.char\.(\w+) \{[^}]*?text-decoration: underline (\w+)", CSS))
    assert lines == {"fair": "dotted", "doubtful": "wavy"}


def test_the_page_knows_the_bundled_model_by_its_name() -> None:
    assert f'const BUNDLED = "{BUNDLED_MODEL}";' in (FOLDER / "options.js").read_text(encoding="utf-8")
