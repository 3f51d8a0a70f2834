"""Published weights: fetched once, checked, cached."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tqdm import tqdm

from artifact.download import NotReceivedError, OtherFileError
from artifact.download import download as receive
from model.recognisers.registry import published_files

TIMEOUT_S: Final = 30.0


class DownloadError(RuntimeError):
    """Published weights cannot be obtained; the message names the cause and the cure."""


def cache_folder() -> Path:
    """Where downloads are kept: `PARSEQ_CACHE`, else `parseq-service` in the user's cache folder."""
    if chosen := os.environ.get("PARSEQ_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parseq-service"


def released_file(name: str) -> Path:
    """The published weights of `name`, from the cache or downloaded to it.

    Raises:
        DownloadError: There are none of that name, the network fails, or the file is not the published one.
    """
    files = published_files()
    if name not in files:
        raise DownloadError(f"no weights are published for {name!r}: there are for {', '.join(files)}")
    target = cache_folder() / files[name].file_name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        download(files[name].url, target, files[name].sha256)
    return target


def download(url: str, target: Path, sha256_prefix: str) -> None:
    """Download `url` to `target`, which appears only when whole and checked.

    Raises:
        DownloadError: The network fails, or the content's SHA-256 does not begin with `sha256_prefix`.
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
