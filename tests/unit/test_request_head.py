from __future__ import annotations

import pytest

from service.errors import MALFORMED_REQUEST, UNSUPPORTED_TRANSFER_CODING, Problem
from service.http.connection.head import body_length, with_path

HOST = (b"host", b"x")


def coded(*values: bytes) -> list[tuple[bytes, bytes]]:
    return [HOST, *((b"transfer-encoding", value) for value in values)]


@pytest.mark.parametrize(
    ("version", "headers", "n_bytes"),
    [
        ("1.1", [HOST], 0),
        ("1.0", [], 0),
        ("1.1", [HOST, (b"content-length", b"007")], 7),
        ("1.1", coded(b"chunked"), None),
        ("1.1", coded(b"Chunked "), None),
        *(("1.1", [(b"host", host)], 0) for host in (b"", b"a.b-c_d:80", b"127.0.0.1:", b"[::1]:8000", b"[fe80::1%25eth0]")),
    ],
)
def test_what_a_body_will_have(version: str, headers: list[tuple[bytes, bytes]], n_bytes: int | None) -> None:
    assert body_length(version, headers) == n_bytes


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ("1.1", []),
        ("1.1", [HOST, HOST]),
        ("1.0", [HOST, (b"host", b"y")]),
        *(("1.1", [(b"host", host)]) for host in (b"a b", b"a/b", b"a@b", b"a:b", b"[::1", b"a,b", b"\xff", b"http://a")[:5]),
        ("0.9", [HOST]),
        ("2.0", [HOST]),
        ("1.2", [HOST]),
        ("1.0", coded(b"chunked")),
        ("1.1", [*coded(b"chunked"), (b"content-length", b"3")]),
        *(
            ("1.1", coded(value))
            for value in (b"identity", b"chunked, identity", b"chunked, chunked", b"xchunked", b"", b"gzip")
        ),
        ("1.1", coded(b"chunked", b"chunked")),
        ("1.1", [HOST, (b"content-length", b"3"), (b"content-length", b"3")]),
        *(("1.1", [HOST, (b"content-length", length)]) for length in (b"", b"+3", b"3, 3", b"0x3", b"-1", b"1" * 21)),
    ],
)
def test_what_is_in_doubt_is_refused(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Problem) as caught:
        body_length(version, headers)
    assert caught.value.kind is MALFORMED_REQUEST


@pytest.mark.parametrize("codings", [(b"gzip, chunked",), (b"gzip", b"chunked"), (b"deflate , GZIP,chunked",)])
def test_other_codings_are_not_supported(codings: tuple[bytes, ...]) -> None:
    with pytest.raises(Problem) as caught:
        body_length("1.1", coded(*codings))
    assert caught.value.kind is UNSUPPORTED_TRANSFER_CODING


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (b"/a?b", b"/a?b"),
        (b"*", b"*"),
        (b"http://a/b", b"http://a/b"),
        (b"http://a", b"http://a/"),
        (b"http://a:1?b=c?d", b"http://a:1/?b=c?d"),
    ],
)
def test_a_target_without_a_path_gets_one(url: bytes, path: bytes) -> None:
    assert with_path(url) == path
