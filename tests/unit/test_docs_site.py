"""The site of the docs is whole, needs nobody else's server, and says what is so."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from artifact.fit import fit_for
from artifact.metadata import ArtifactMetadata
from artifact.regions import Page, corners_of
from artifact.session import open_cpu_session
from artifact.text import text_of
from export.__main__ import build_parser as export_parser
from model.training.train import parse_args as parse_train_args
from reading.evaluate import build_parser as evaluate_parser
from service.config import BUNDLED_ARTIFACT

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SITE = DOCS / "site"
PAGES = sorted(DOCS.rglob("*.md"))
README_LINES = 90
"""Two screens."""


def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", SITE / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rewritten(markdown: str, page: str = "tutorials/serve.md", repo_url: str = "") -> str:
    page_ = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    result = hooks().on_page_markdown(markdown, page=page_, config=SimpleNamespace(repo_url=repo_url))
    assert isinstance(result, str)
    return result


def build(folder: Path) -> None:
    """Every warning is an error: pages, links and anchors that are not there, pages that the navigation lacks."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(
        [*command, "--config-file", str(SITE / "mkdocs.yml"), "--site-dir", str(folder)],
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "REPOSITORY": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_site_is_whole_and_needs_nobody_else(tmp_path: Path) -> None:
    """One test, so that it is built once."""
    site = tmp_path / "site"
    build(site)
    check_pages(site)
    check_that_nothing_comes_from_elsewhere(site)
    check_reference(site)


def check_pages(site: Path) -> None:
    pages = {page.relative_to(DOCS).with_suffix(".html") for page in PAGES}
    pages = {page.with_name("index.html") if page.name == "README.html" else page for page in pages}
    assert {path for path in pages if not (site / path).is_file()} == set()
    assert [file.name for file in (site / "site").iterdir()] == ["style.css"]
    listed = (site / "adr" / "index.html").read_text()
    assert not [file.name for file in (DOCS / "adr").glob("0*.md") if f'href="{file.stem}.html"' not in listed]


def check_that_nothing_comes_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    loaded = [
        (page.name, address)
        for page in pages
        for address in re.findall(
            r"""<(?:script|img|iframe|source)\b[^>]*?\bsrc="([^"]+)|<link\b[^>]*?href="([^"]+)""", page.read_text()
        )
        if "//" in "".join(address)
    ]
    assert loaded == []
    styles = [style.read_text() for style in site.rglob("*.css")]
    assert not [found for text in styles for found in re.findall(r"(?:@import|url\()[\"'\s]*(?:https?:)?//[^)]*", text)]
    # The theme fetches its drawer of diagrams from elsewhere, once a page has one.
    assert not [page.name for page in pages if 'class="mermaid"' in page.read_text()]


def check_reference(site: Path) -> None:
    artifact, recogniser = ((site / "reference" / f"{name}.html").read_text() for name in ("artifact", "recogniser"))
    assert 'id="artifact.metadata.ArtifactMetadata"' in artifact
    assert 'id="artifact.text.text_of"' in artifact
    assert 'id="model.recognisers.interface.Network.forward"' in recogniser


def test_a_link_out_of_the_pages_is_the_name_of_a_file_or_leads_to_the_repository() -> None:
    link = "see [`values`](../../k8s/chart/values.yaml#L3), [there](../api.md#x) and [Chart](../../k8s/chart)"
    told = "see `values` (`k8s/chart/values.yaml`), [there](../api.md#x) and Chart (`k8s/chart`)"
    assert rewritten(link) == told
    assert rewritten("[`k8s/chart`](../k8s/chart)", page="api.md") == "`k8s/chart`"
    at = "https://git.example/x"
    assert rewritten("[Chart](../../k8s/chart)", repo_url=at + "/") == f"[Chart]({at}/blob/main/k8s/chart)"


def test_code_pictures_and_other_sites_are_left_alone() -> None:
    text = "```md\n[a](../../x)\n```\n![b](../../y.png) [c](https://c.example/../..) [d](#d) [e](../samples/e.png)\n"
    assert rewritten(text) == text


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda page: page.stem)
def test_every_link_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = re.findall(r"\]\(([^()\s#]+)(?:#[^()\s]*)?\)", text) + re.findall(r'\bsrc="([^"]+)"', text)
    assert not [target for target in targets if "://" not in target and not (page.parent / target).exists()]


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_python_in_the_pages_is_python(page: Path) -> None:
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        ast.parse(code)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


def test_the_readme_leads_to_every_tutorial_and_the_limits() -> None:
    readme = (ROOT / "README.md").read_text()
    pages = [*(DOCS / "tutorials").glob("*.md"), DOCS / "limits.md", DOCS / "deployment.md"]
    assert not [page.name for page in pages if f"]({page.relative_to(ROOT)})" not in readme]


def test_the_photograph_is_read_as_the_tutorial_says() -> None:
    page = (DOCS / "tutorials" / "photograph.md").read_text()
    [corners] = re.findall(r'^\[\{"points": (\[\[.*?\]\])\}, \.\.\.\]$', page, re.M)
    session = open_cpu_session(BUNDLED_ARTIFACT, threads=1)
    metadata = ArtifactMetadata.from_map(session.get_modelmeta().custom_metadata_map)
    with Image.open(DOCS / "images" / "sign.jpg") as picture:
        crop = Page(picture.convert("RGB"), metadata.image_height, metadata.image_width).cut(
            corners_of(ast.literal_eval(corners), None)
        )
    ids, confidences = session.run(["token_ids", "confidences"], {"images": fit_for(metadata, crop)[None]})
    reading = text_of(ids[0].tolist(), confidences[0].tolist(), metadata.vocabulary)
    [said] = re.findall(r"^(HARBOUR) 0\.\d+$", page, re.M)
    assert reading.text == said


def test_the_limits_are_those_of_the_bundled_model() -> None:
    page = (DOCS / "limits.md").read_text()
    metadata = ArtifactMetadata.from_map(open_cpu_session(BUNDLED_ARTIFACT, threads=1).get_modelmeta().custom_metadata_map)
    assert f"its {len(metadata.vocabulary)}, the 94 printable ones of ASCII, the space and `£ € ¥ ° © ® §`" in page
    assert f"more than {metadata.max_label_length} characters" in page
    assert not set("éß₹") & set(metadata.vocabulary)
    assert set(string.printable[:94] + " £€¥°©®§") == set(metadata.vocabulary)


PARSERS: dict[str, Callable[[list[str]], object]] = {
    "parseq-train": parse_train_args,
    "parseq-evaluate": lambda words: evaluate_parser().parse_args(words),
    "parseq-export": lambda words: export_parser().parse_args(words),
}


def test_the_commands_of_the_tutorial_have_the_options_that_they_are_given() -> None:
    page = (DOCS / "tutorials" / "fine_tune.md").read_text().replace("\\\n", " ")
    shell = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S))
    commands = [shlex.split(line) for line in shell.splitlines() if line.partition(" ")[0] in PARSERS]
    assert {words[0] for words in commands} == set(PARSERS)
    for name, *words in commands:
        PARSERS[name](words)
