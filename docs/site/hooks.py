"""What the site makes of pages that are also read in the repository."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"^( *(?:```|~~~)[^\n]*\n.*?^ *(?:```|~~~) *$)", re.M | re.S)


def on_config(config: Any) -> Any:
    """Put each decision record into the navigation, behind their list."""
    inside = next(entry["Inside"] for entry in config.nav if "Inside" in entry)
    decisions = next(entry["Decisions"] for entry in inside if "Decisions" in entry)
    decisions += sorted(f"adr/{file.name}" for file in Path(config.docs_dir, "adr").glob("0*.md"))
    return config


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Lead links out of `docs/` to the repository, where the site knows its address; elsewhere they are the name of a file."""
    folder = posixpath.dirname(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        path = posixpath.normpath(posixpath.join("docs", folder, target.partition("#")[0]))
        if image or "://" in target or target.startswith(("#", "mailto:")) or path == "docs" or path.startswith("docs/"):
            return match[0]
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path})"
        return text if f"`{path}`" in text else f"{text} (`{path}`)"

    parts = FENCE.split(markdown)
    return "".join(part if at % 2 else LINK.sub(link, part) for at, part in enumerate(parts))
