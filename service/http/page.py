"""`GET /`: a page on which people try the service, and the few files it needs. It loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

FOLDER: Final = Path(__file__).parent.parent / "bundled" / "page"
MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript"}


def add_page(router: APIRouter) -> None:
    """Add the page, and below `/page/` its style and scripts, whose addresses in it are relative."""
    page = (FOLDER / "index.html").read_bytes()
    _add(router, "/", page, "text/html", {"Content-Security-Policy": policy_of(page.decode())})
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in MEDIA_TYPES:
            _add(router, f"/page/{path.name}", path.read_bytes(), MEDIA_TYPES[path.suffix], {})


def policy_of(page: str) -> str:
    """The content security policy: nothing but the page's own files, and of scripts in it none but those it has now."""
    digests = [hashlib.sha256(script.encode()).digest() for script in re.findall(r"<script>(.*?)</script>", page, re.S)]
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self'; img-src blob:; connect-src 'self'; "
        "base-uri 'self'; form-action 'none'"
    )


def _add(router: APIRouter, path: str, content: bytes, media_type: str, headers: dict[str, str]) -> None:
    @router.get(path, include_in_schema=False)
    async def file() -> Response:
        return Response(content, media_type=media_type, headers=headers)
