"""`python -m service.fetch_artifact [URL] SHA256 DESTINATION`: download an artifact for a server.

Without a URL among the arguments, that of the environment variable `ARTIFACT_URL` is used: arguments are shown by `ps`, by
Kubernetes and in logs of commands, and a signed URL is a secret. Of a URL only scheme, host and path are ever printed.

For init containers: the image that serves also fetches. Needs the standard library only. The file appears complete and
checked, or not at all; an existing file with the right checksum is kept, and nothing is fetched. Nothing is tried twice:
whatever started this (Kubernetes, Compose) tries again, and waits longer each time.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import SplitResult, urlsplit

from artifact.download import NotReceivedError, OtherFileError, download, file_sha256

URL_VARIABLE: Final = "ARTIFACT_URL"
ORDER: Final = f"give URL, SHA256 and DESTINATION in this order, or the last two, and the URL in {URL_VARIABLE}"
EXIT_OK: Final = 0
EXIT_FAILED: Final = 3
"""The same code as the server's when it cannot start."""
SILENCE_TIMEOUT_S: Final = 60.0
"""How many seconds the other side may send nothing."""
READABLE_BY_ALL: Final = 0o644
"""Permissions of the file: the server may run as another user than the one that fetched it."""


class FetchError(Exception):
    """The artifact cannot be obtained; the message is one line that names the cause."""


def fetch_artifact(url: str, sha256: str, destination: Path) -> bool:
    """Bring the file at `url` to `destination`; `False` when it was there already.

    Raises:
        FetchError: An argument is wrong, the file cannot be received or written, or it has another checksum.
    """
    wanted = sha256.lower()
    if not re.fullmatch(r"[0-9a-f]{64}", wanted):
        # Its value is not shown: with arguments in another order it would be the URL.
        raise FetchError(f"SHA256 is not 64 hexadecimal digits, as `sha256sum FILE` prints them: {ORDER}")
    if str(destination).startswith(("http:/", "https:/")):
        raise FetchError(f"DESTINATION is a URL: {ORDER}")
    source = _checked(url)
    try:
        if destination.is_dir():
            raise FetchError(f"{destination} is a folder: name the file to be")
        if destination.exists() and file_sha256(destination) == wanted:
            return False
        destination.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, source, wanted, destination)
    except OSError as error:
        raise FetchError(f"{destination} cannot be written: {error.strerror or error}") from error
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch the artifact; the exit code is 0 when the file is in its place and 3 when it is not."""
    arguments = _parse(argv)
    try:
        fetched = fetch_artifact(_url(arguments.url), arguments.sha256, arguments.destination)
    except FetchError as error:
        print(f"fetch_artifact: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_FAILED
    print(f"{arguments.destination}: {'fetched, the checksum is right' if fetched else 'already there'}")
    return EXIT_OK


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with the expected arguments, and without the given ones: one may be a signed URL."""
        super().error(ORDER)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m service.fetch_artifact",
        description="Fetch an artifact, compare its SHA-256 and put it into place, all of it or nothing.",
    )
    parser.add_argument(
        "url", nargs="?", help=f"http:// or https://; by default that of {URL_VARIABLE}, where a signed one belongs"
    )
    parser.add_argument("sha256", help="what `sha256sum FILE` prints for the right file")
    parser.add_argument("destination", type=Path, help="the file to write, such as /models/model.onnx")
    return parser.parse_args(argv)


def _url(argument: str | None) -> str:
    """The URL of the arguments, or else of the environment; files of secrets often end with a line break."""
    url = (os.environ.get(URL_VARIABLE, "") if argument is None else argument).strip()
    if not url:
        raise FetchError(f"there is no URL: {ORDER}")
    return url


def _checked(url: str) -> SplitResult:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise FetchError("the URL has spaces, line breaks or other characters that a URL must write as %XX")
    try:
        source = urlsplit(url)
        usable = source.scheme in ("http", "https") and bool(source.hostname)
        usable = usable and source.port != 0  # raises ValueError for a port that is not a number
    except ValueError:
        usable = False
    if not usable:
        raise FetchError("the URL must begin with http:// or https://, name a host, and have a port that is a number or none")
    return source


def _fetch(url: str, source: SplitResult, wanted: str, destination: Path) -> None:
    # Without user, password and query, which may be secrets: this goes to logs.
    shown = f"{source.scheme}://{source.netloc.rpartition('@')[2]}{source.path}"
    try:
        download(url, destination, wanted, silence_s=SILENCE_TIMEOUT_S, mode=READABLE_BY_ALL)
    except NotReceivedError as error:
        raise FetchError(f"{shown} {error}") from None
    except OtherFileError as error:
        raise FetchError(f"{shown} has the SHA-256 {error}, not {wanted}: another file, or a damaged one") from None


if __name__ == "__main__":
    sys.exit(main())
