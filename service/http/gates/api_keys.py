"""API keys, for servers without a gateway that checks its clients: a file of keys that may change while the server runs."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from service.errors import UNAUTHORIZED, Problem, StartupError
from service.http.gates.key_file import digests_of, read_key_file
from service.http.head import Head
from service.process.request import outside_requests

LOOK_EVERY_S: Final = 1.0
"""Seconds between two readings of the file, at least. It is small, and only its content tells for certain whether it has
changed: modification times are coarse, and a file that replaces it may have the same."""

logger = logging.getLogger(__name__)


class ApiKeys:
    """The keys of a file that is read at intervals. Only SHA-256 digests are kept, of the keys and of the file.

    If the file holds no key any more, nobody passes. If it is missing, cannot be read or has a line that is not a key, the keys
    read before stay valid. Either is logged, once for each change.

    Args:
        path: Has a key a line, or `sha256:` and its digest in hexadecimal; empty lines and `#` comments are ignored.
        clock: Monotonic clock in seconds.

    Raises:
        StartupError: The file cannot be read, holds no key, or has a line that is not a key.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked_s = clock()
        self._complaint: str | None = None
        """What was wrong with the file at the last look."""
        content = read_key_file(path)
        self._seen = _sha256(content)
        """Digest of the content that the keys come from."""
        self._digests = digests_of(path, content)
        if not self._digests:
            raise StartupError(f"PARSEQ_API_KEYS_FILE={path} holds no key: write one in each line")

    def check(self, headers: Mapping[bytes, bytes]) -> bytes:
        """Check the key of a request.

        Args:
            headers: Headers of the request, names in lower case.

        Returns:
            The SHA-256 digest of its key, which tells its client from others.

        Raises:
            Problem: It has no key, or one that is not in the file.
        """
        now_s = self._clock()
        if now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            outside_requests(self._look)
        key = _key_of(headers)
        if key is None:
            raise _unauthorized("This server wants an API key: send `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
        digest = _sha256(key)
        # All keys are compared, each in constant time, so that timing tells nothing about them.
        if not sum([hmac.compare_digest(digest, known) for known in self._digests]):
            raise _unauthorized("The API key is not one of this server's.")
        return digest

    def _look(self) -> None:
        try:
            content = read_key_file(self._path)
            seen = _sha256(content)
            digests = self._digests if seen == self._seen else digests_of(self._path, content)
        except StartupError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                logger.error("the API keys stay as they were: %s", error)
            return
        if seen == self._seen and self._complaint is None:
            return
        self._seen, self._digests, self._complaint = seen, digests, None
        if digests:
            logger.info("read %d API keys", len(digests))
        else:
            logger.warning("nobody may pass: PARSEQ_API_KEYS_FILE=%s holds no API key any more", self._path)


class KeyGate:
    """Refuses requests without a valid key, before any other gate tells them anything, such as that the server is busy.

    Args:
        keys: The keys of the server.
        wanted: Whether requests to a path need a key.
    """

    def __init__(self, keys: ApiKeys, wanted: Callable[[str], bool]) -> None:
        self._keys = keys
        self._wanted = wanted

    def check(self, head: Head) -> Problem | None:
        """Set `head.client` to the digest of the key; refuse a request that needs a key and has no valid one."""
        if self._wanted(head.path):
            try:
                head.client = self._keys.check(head.headers)
            except Problem as problem:
                return problem.bare()
        return None


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _key_of(headers: Mapping[bytes, bytes]) -> bytes | None:
    key = headers.get(b"x-api-key")
    if key is not None:
        return key.strip()
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else None


def _unauthorized(detail: str) -> Problem:
    return Problem(UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})
