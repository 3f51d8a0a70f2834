"""The published weights of baudm/parseq: fetched once, checked, cached."""

from __future__ import annotations

import os
from pathlib import Path

from tqdm import tqdm

from artifact.download import NotReceivedError, OtherFileError
from artifact.download import download as receive

RELEASE = "https://github.com/baudm/parseq/releases/download/v1.0.0/"
RELEASED_FILES = {
    "parseq-tiny": "parseq_tiny-e7a21b54.pt",
    "parseq": "parseq-bb5792a6.pt",
    "parseq-patch16-224": "parseq_small_patch16_224-fcf06f5a.pt",
}
"""File names end in the first eight hex digits of the file's SHA-256."""
TIMEOUT_S = 30.0


class DownloadError(RuntimeError):
    """Published weights cannot be had; the message names the cause and the cure."""


def cache_folder() -> Path:
    """Where downloads are kept: `PARSEQ_CACHE`, else `parseq-service` in the user's cache folder."""
    if chosen := os.environ.get("PARSEQ_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parseq-service"


def released_file(name: str, base_url: str = RELEASE) -> Path:
    """The published weights of `name`, from the cache or downloaded to it.

    Raises:
        DownloadError: there are none of that name, the network fails, or the file is not the published one.
    """
    if name not in RELEASED_FILES:
        raise DownloadError(f"no weights are published for {name!r}: there are for {', '.join(RELEASED_FILES)}")
    file_name = RELEASED_FILES[name]
    target = cache_folder() / file_name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        download(base_url + file_name, target, sha256_prefix=Path(file_name).stem.rpartition("-")[2])
    return target


def download(url: str, target: Path, sha256_prefix: str) -> None:
    """Download `url` to `target`, which appears only when whole and checked.

    Raises:
        DownloadError: the network fails, or the content's SHA-256 does not begin with `sha256_prefix`.
    """
    try:
        with tqdm(unit="B", unit_scale=True, desc=target.name) as bar:

            def show(received: int, size: int) -> None:
                bar.total = size or None
                bar.update(received - bar.n)

            receive(url, target, sha256_prefix, silence_s=TIMEOUT_S, progress=show)
    except OtherFileError as error:
        raise DownloadError(
            f"{url} gave a file with SHA-256 {str(error)[:8]}..., expected {sha256_prefix}...: "
            "the download was cut short or altered; try again"
        ) from None
    except NotReceivedError as error:
        raise DownloadError(
            f"cannot download {url} (it {error}): without a network, fetch the file elsewhere and put it at {target}, "
            "or give its path (--weights FILE)"
        ) from None
