"""Published weights: fetched once, checked, cached."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tqdm import tqdm

from model.recognisers.registry import published_files

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0


class DownloadError(RuntimeError):
    """Published weights cannot be had; the message names the cause and the cure."""


def cache_folder() -> Path:
    """Where downloads are kept: `PARSEQ_CACHE`, else `parseq-service` in the user's cache folder."""
    if chosen := os.environ.get("PARSEQ_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parseq-service"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def released_file(name: str) -> Path:
    """The published weights of `name`, from the cache or downloaded to it.

    Raises:
        DownloadError: there are none of that name, the network fails, or the file is not the published one.
    """
    files = published_files()
    if name not in files:
        raise DownloadError(f"no weights are published for {name!r}: there are for {', '.join(files)}")
    target = cache_folder() / files[name].file_name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        download(files[name].url, target, files[name].sha256)
    return target


def _open(url: str) -> Any:
    # Addresses are those of published weights, not a user's, and what comes is checked by its digest.
    return urllib.request.urlopen(url, timeout=TIMEOUT_S)  # nosec B310


def download(url: str, target: Path, sha256_prefix: str) -> None:
    """Download `url` to `target`, which appears only when whole and checked.

    Raises:
        DownloadError: the network fails, or the content's SHA-256 does not begin with `sha256_prefix`.
    """
    handle, partial = tempfile.mkstemp(dir=target.parent, suffix=".part")
    try:
        digest = hashlib.sha256()
        with os.fdopen(handle, "wb") as file, _open(url) as response:
            size = int(response.headers.get("Content-Length") or 0)
            with tqdm(total=size or None, unit="B", unit_scale=True, desc=target.name) as bar:
                while chunk := response.read(CHUNK_BYTES):
                    file.write(chunk)
                    digest.update(chunk)
                    bar.update(len(chunk))
        if not digest.hexdigest().startswith(sha256_prefix):
            raise DownloadError(
                f"{url} gave a file with SHA-256 {digest.hexdigest()[:8]}..., expected {sha256_prefix}...: "
                "the download was cut short or altered; try again"
            )
        Path(partial).replace(target)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(
            f"cannot download {url} ({reason}): without a network, fetch the file elsewhere and put it at {target}, "
            "or give its path (--weights FILE)"
        ) from None
    finally:
        Path(partial).unlink(missing_ok=True)
