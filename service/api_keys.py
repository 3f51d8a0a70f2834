"""API keys, for servers without a gateway that knows its clients: a file of keys that may change while the server runs."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from service.errors import UNAUTHORIZED, Problem, StartupError

HASH_PREFIX: Final = "sha256:"
MIN_KEY_LENGTH: Final = 16
LOOK_EVERY_S: Final = 1.0
"""How often, at most, the file is looked at."""

_HASH: Final = re.compile(r"[0-9a-f]{64}")
_KEY: Final = re.compile(r"[\x21-\x7e]+")

logger = logging.getLogger(__name__)


class ApiKeys:
    """The keys of a file, read again when it changes. Only their SHA-256 digests are kept.

    Args:
        path: One key a line, or `sha256:` and the digest of one in hexadecimal; empty lines and `#` comments are ignored.
        clock: Monotonic, seconds.

    Raises:
        StartupError: the file cannot be read, or holds no key, or something that is none.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked_s = clock()
        self._seen = _fingerprint(path)
        self._digests = _read(path)

    def check(self, headers: Mapping[bytes, bytes]) -> bytes:
        """Let a request pass.

        Args:
            headers: Of the request, names in lower case.

        Returns:
            The SHA-256 digest of its key, which tells its client from others.

        Raises:
            Problem: it has no key, or one that is not in the file.
        """
        self._look()
        key = _key_of(headers)
        if key is None:
            raise _unauthorized("This server wants an API key: send `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
        digest = hashlib.sha256(key).digest()
        # All of them, and each in the same time: how long it takes says nothing about the keys.
        if not sum([hmac.compare_digest(digest, known) for known in self._digests]):
            raise _unauthorized("The API key is not one of this server's.")
        return digest

    def _look(self) -> None:
        now_s = self._clock()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            seen = _fingerprint(self._path)
            if seen == self._seen:
                return
            self._seen = seen
            self._digests = _read(self._path)
        except StartupError as error:
            logger.error("the API keys stay as they were: %s", error)
        else:
            logger.info("read %d API keys", len(self._digests))


def _key_of(headers: Mapping[bytes, bytes]) -> bytes | None:
    key = headers.get(b"x-api-key")
    if key is not None:
        return key.strip()
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else None


def _unauthorized(detail: str) -> Problem:
    return Problem(UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})


def _fingerprint(path: Path) -> tuple[int, int, int]:
    """What differs when the file has changed; a Kubernetes Secret is changed by another file in its place."""
    try:
        status = path.stat()
    except OSError as error:
        raise StartupError(f"PARSEQ_API_KEYS_FILE={path} cannot be read: {error.strerror}") from error
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: Path) -> tuple[bytes, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"PARSEQ_API_KEYS_FILE={path} cannot be read: {error}") from error
    digests = tuple(_digests(path, lines))
    if not digests:
        raise StartupError(f"PARSEQ_API_KEYS_FILE={path} holds no key: write one in each line")
    return digests


def _digests(path: Path, lines: Iterable[str]) -> Iterable[bytes]:
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        # The line itself is not shown: it may be a key but for a slip.
        if line.startswith(HASH_PREFIX):
            if not _HASH.fullmatch(line.removeprefix(HASH_PREFIX)):
                raise StartupError(f"PARSEQ_API_KEYS_FILE={path}: line {number} is not `sha256:` and 64 hexadecimal digits")
            yield bytes.fromhex(line.removeprefix(HASH_PREFIX))
        elif len(line) < MIN_KEY_LENGTH or not _KEY.fullmatch(line):
            raise StartupError(
                f"PARSEQ_API_KEYS_FILE={path}: line {number} is no key: at least {MIN_KEY_LENGTH} visible ASCII characters"
            )
        else:
            yield hashlib.sha256(line.encode()).digest()
