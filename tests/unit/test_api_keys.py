from __future__ import annotations

import hashlib
import logging
import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.errors import UNAUTHORIZED, Problem, StartupError
from service.http.gates import key_file
from service.http.gates.api_keys import LOOK_EVERY_S, ApiKeys
from service.http.gates.key_file import MAX_FILE_BYTES
from service.process.request import RequestContext, current_request
from tests.fakes import FakeClock, request, toy_runtime, with_client
from tests.toy_artifact import png_of

FIRST, SECOND = "first-key-0123456789", "second-key-0123456789"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"# of the team\n\n{FIRST}\nsha256:{hashlib.sha256(SECOND.encode()).hexdigest()}\n")
    return path


def replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


def passes(keys: ApiKeys, **headers: str) -> bool:
    try:
        keys.check({name.replace("_", "-").encode(): value.encode() for name, value in headers.items()})
    except Problem as caught:
        problem = caught
    else:
        return True
    assert problem.kind is UNAUTHORIZED
    assert problem.headers["WWW-Authenticate"] == "Bearer"
    assert FIRST not in problem.detail
    return False


@pytest.mark.parametrize(
    "headers",
    [
        {"x_api_key": FIRST},
        {"x_api_key": f" {SECOND} "},
        {"authorization": f"Bearer {FIRST}"},
        {"authorization": f"bearer  {SECOND}"},
    ],
)
def test_the_keys_of_the_file_pass(file: Path, headers: dict[str, str]) -> None:
    assert passes(ApiKeys(file), **headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_api_key": ""},
        {"x_api_key": FIRST[:-1]},
        {"x_api_key": FIRST.upper()},
        {"x_api_key": "# of the team"},
        {"x_api_key": f"sha256:{hashlib.sha256(SECOND.encode()).hexdigest()}"},
        {"x_api_key": hashlib.sha256(SECOND.encode()).hexdigest()},
        {"authorization": FIRST},
        {"authorization": f"Basic {FIRST}"},
        {"authorization": "Bearer"},
        {"x_api_key": "wrong", "authorization": f"Bearer {FIRST}"},  # pragma: allowlist secret
    ],
)
def test_nothing_else_does(file: Path, headers: dict[str, str]) -> None:
    assert not passes(ApiKeys(file), **headers)


def test_keys_are_rotated_without_a_restart(file: Path) -> None:
    clock = FakeClock()
    keys = ApiKeys(file, clock)
    replace(file, "third-key-0123456789\n")
    assert passes(keys, x_api_key=FIRST)  # not looked at yet
    clock.advance(LOOK_EVERY_S)
    assert passes(keys, x_api_key="third-key-0123456789")  # pragma: allowlist secret
    assert not passes(keys, x_api_key=FIRST)


@pytest.mark.parametrize("text", ["short\n", "sha256:abc\n", '"third-key-0123456789"\n', "third-key-0123456789\0\n"])
def test_a_file_that_cannot_be_used_changes_nothing(file: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    keys = ApiKeys(file, clock)
    replace(file, text)
    clock.advance(LOOK_EVERY_S)
    assert passes(keys, x_api_key=FIRST)
    assert "the API keys stay as they were" in caplog.text
    file.unlink()
    clock.advance(LOOK_EVERY_S)
    assert passes(keys, x_api_key=FIRST)


@pytest.mark.parametrize("text", ["", "\n", "# none left\n", "\ufeff\r\n"])
def test_a_file_without_a_key_revokes_them_all(file: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    keys = ApiKeys(file, clock)
    file.write_text(text)
    for _ in range(3):
        clock.advance(LOOK_EVERY_S)
        assert not passes(keys, x_api_key=FIRST)
        assert not passes(keys, x_api_key="")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "nobody may pass" in caplog.text
    file.write_text(FIRST)
    clock.advance(LOOK_EVERY_S)
    assert passes(keys, x_api_key=FIRST)


def test_a_file_that_becomes_readable_later_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    keys = ApiKeys(file, clock)
    replace(file, "third-key-0123456789\n")
    with monkeypatch.context() as forbidden:

        def denied(_path: Path, _flags: int) -> int:
            raise PermissionError(13, "Permission denied")

        forbidden.setattr(key_file.os, "open", denied)  # whoever runs the tests may be allowed to read everything
        clock.advance(LOOK_EVERY_S)
        assert passes(keys, x_api_key=FIRST)
    clock.advance(LOOK_EVERY_S)
    assert passes(keys, x_api_key="third-key-0123456789")  # pragma: allowlist secret
    assert not passes(keys, x_api_key=FIRST)


def test_a_change_that_leaves_size_and_times_as_they_were_is_seen(file: Path) -> None:
    file.write_text(FIRST)
    clock = FakeClock()
    keys = ApiKeys(file, clock)
    before = file.stat()
    changed = FIRST.replace("f", "F")
    file.write_text(changed)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.advance(LOOK_EVERY_S)
    assert passes(keys, x_api_key=changed)
    assert not passes(keys, x_api_key=FIRST)


def test_a_file_that_stays_wrong_is_told_once_and_once_more_when_it_is_wrong_otherwise(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    content = file.read_text()
    clock = FakeClock()
    keys = ApiKeys(file, clock)

    def look_often() -> list[str]:
        caplog.clear()
        for _ in range(5):
            clock.advance(LOOK_EVERY_S)
            assert passes(keys, x_api_key=FIRST)
        return [record.levelname for record in caplog.records]

    assert look_often() == []
    file.unlink()
    assert look_often() == ["ERROR"]
    file.write_text("short\n")
    assert look_often() == ["ERROR"]
    file.write_text(content)
    assert look_often() == ["INFO"]


def make_folder(path: Path) -> None:
    path.mkdir()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def write_too_much(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)


def write_utf_16(path: Path) -> None:
    path.write_text(FIRST, encoding="utf-16")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (make_folder, "is a folder, not a file"),
        (make_pipe, "is a pipe, not a file"),
        (make_socket, "is a socket, not a file"),
        (link_to_device, "is a device, not a file"),
        (link_to_itself, "cannot be read"),
        (write_too_much, "is larger than 1048576 bytes"),
        (write_utf_16, "is not UTF-8 text"),
    ],
)
def test_what_is_no_file_of_keys_is_told_at_once(
    tmp_path: Path, file: Path, make: Callable[[Path], None], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other"
    make(other)
    with pytest.raises(StartupError, match=told):
        ApiKeys(other)
    clock = FakeClock()
    keys = ApiKeys(file, clock)
    file.unlink()
    file.symlink_to(other)
    clock.advance(LOOK_EVERY_S)
    assert passes(keys, x_api_key=FIRST)
    assert told in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
def test_a_pipe_in_the_place_of_the_file_that_was_looked_at_keeps_nobody_waiting(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def swapped(path: Path, flags: int) -> int:
        file.unlink()
        os.mkfifo(file)
        return real(path, flags)

    monkeypatch.setattr(key_file.os, "open", swapped)
    with pytest.raises(StartupError, match="is a pipe"):
        ApiKeys(file)
    assert stat.S_ISFIFO(file.stat().st_mode)


@pytest.mark.parametrize("written", ["\ufeff{}", "{}\r\n", "\ufeff# ours\r\n \t{}\t \r\n\r\n", "{}\r", "\r{}"])
def test_ends_of_lines_and_a_byte_order_mark_are_no_part_of_a_key(tmp_path: Path, written: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(written.format(FIRST).encode())
    assert passes(ApiKeys(path), x_api_key=FIRST)


@pytest.mark.parametrize(
    "written",
    [
        '"{}"',
        "'{}'",
        "`{}`",
        '"{}',
        "{}'",
        'KEY="{}"',
        '"{}",',
        '["{}"]',
        "('{}',)",
        "\u201c{}\u201d",
        "{}\x0b{}",
        "{}\u2028{}",
        "{}\xa0",
        "{}\x85",
        "{}\0",
    ],
)
def test_what_only_looks_like_a_key_is_told_with_its_line(tmp_path: Path, written: str) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\n" + SECOND + "\n" + written.format(FIRST, FIRST), encoding="utf-8")
    with pytest.raises(StartupError, match=r"line 3 (is no key|begins or ends with a quotation mark)") as told:
        ApiKeys(path)
    assert FIRST not in str(told.value)


@pytest.mark.parametrize("prefix", ["sha256:", "SHA256:"])
def test_digests_may_be_written_in_capitals(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "keys"
    path.write_text(prefix + hashlib.sha256(SECOND.encode()).hexdigest().upper())
    assert passes(ApiKeys(path), x_api_key=SECOND)


def test_what_is_logged_of_the_file_names_no_request(file: Path) -> None:
    seen: list[object] = []

    class Catcher(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(current_request.get())

    clock = FakeClock()
    keys = ApiKeys(file, clock)
    logger, catcher = logging.getLogger("service.http.gates.api_keys"), Catcher()
    logger.addHandler(catcher)
    token = current_request.set(RequestContext("somebody"))
    try:
        file.unlink()
        clock.advance(LOOK_EVERY_S)
        assert passes(keys, x_api_key=FIRST)
    finally:
        current_request.reset(token)
        logger.removeHandler(catcher)
    assert seen == [None]


@pytest.mark.parametrize("text", ["", "# nothing\n", "short\n", "sha256:abc\n", "with a space inside it\n"])
def test_at_the_start_such_a_file_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    with pytest.raises(StartupError, match="PARSEQ_API_KEYS_FILE"):
        ApiKeys(path)
    path.write_text(text)
    with pytest.raises(StartupError, match="PARSEQ_API_KEYS_FILE") as told:
        ApiKeys(path)
    assert not text.strip("# \n") or text.strip() not in str(told.value)


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/recognize"), ("POST", "/recognize"), ("GET", "/v1/models")])
def test_what_costs_or_tells_something_wants_a_key(file: Path, method: str, path: str) -> None:
    content = png_of("abc") if method == "POST" else None
    refused = request(toy_runtime(api_keys_file=file), method, path, content=content)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.headers["x-request-id"]
    assert refused.json()["type"] == UNAUTHORIZED.type
    headers = {"x-api-key": FIRST}
    assert request(toy_runtime(api_keys_file=file), method, path, content=content, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/openapi.json", "/"])
def test_probes_and_pages_do_not(file: Path, path: str) -> None:
    assert request(toy_runtime(api_keys_file=file), "GET", path).status_code == 200


def test_refusals_for_want_of_a_key_are_counted(file: Path) -> None:
    runtime = toy_runtime(api_keys_file=file)
    request(runtime, "POST", "/v1/recognize", content=png_of("abc"))
    text = runtime.metrics.render().decode()
    assert 'parseq_problems_total{problem="unauthorized"} 1.0' in text
    assert 'parseq_request_duration_seconds_count{status="401"} 1.0' in text


def test_only_recognition_requests_count_as_such(file: Path) -> None:
    runtime = toy_runtime(api_keys_file=file)

    async def scenario(client: httpx.AsyncClient) -> None:
        for method, path in (("GET", "/v1/models"), ("HEAD", "/v1/models"), ("GET", "/v1/recognize"), ("POST", "/v1/nothing")):
            assert (await client.request(method, path)).status_code == 401
        text = (await client.get("/metrics")).text
        assert 'parseq_request_duration_seconds_count{status="401"}' not in text
        assert 'parseq_problems_total{problem="unauthorized"} 4.0' in text
        for path in ("/v1/recognize", "/recognize"):
            assert (await client.post(path)).status_code == 401
        assert 'parseq_request_duration_seconds_count{status="401"} 2.0' in (await client.get("/metrics")).text

    with_client(runtime, scenario)
