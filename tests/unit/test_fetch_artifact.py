"""The tool of init containers, against a real HTTP server."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from service import fetch_artifact
from service.fetch_artifact import EXIT_FAILED, EXIT_OK, FetchError, main

ROOT = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 5000  # more than a chunk
SHA256 = hashlib.sha256(CONTENT).hexdigest()


REDIRECTS = {
    "/to-a-file": "file:///etc/passwd?signature=secret",
    "/to-a-bad-port": "http://127.0.0.1:secret/model.onnx",
    "/to-spaces": "http://127.0.0.1:1/model.onnx?signature=secret and more",
    "/to-itself": "/to-itself?signature=secret",
}


class Store(BaseHTTPRequestHandler):
    """Gives a file, a redirect to it or to nowhere, half of it, or 404."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        if path == "/moved.onnx":
            self.send_response(302)
            self.send_header("Location", "/model.onnx")
            self.end_headers()
        elif path in REDIRECTS:
            self.send_response(302)
            self.send_header("Location", REDIRECTS[path])
            self.end_headers()
        elif path in ("/model.onnx", "/half.onnx"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT if path == "/model.onnx" else CONTENT[: len(CONTENT) // 2])
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def forget() -> None:
    Store.asked.clear()


@pytest.mark.parametrize("name", ["model.onnx", "moved.onnx", "model.onnx?signature=secret"])
def test_the_file_is_put_into_place_with_its_folder(store: str, tmp_path: Path, name: str) -> None:
    destination = tmp_path / "models" / "mine.onnx"
    assert fetch_artifact.fetch_artifact(f"{store}/{name}", SHA256.upper(), destination)
    assert destination.read_bytes() == CONTENT
    assert destination.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in destination.parent.iterdir()] == ["mine.onnx"]


def test_what_is_there_already_is_not_fetched_again(store: str, tmp_path: Path) -> None:
    destination = tmp_path / "mine.onnx"
    destination.write_bytes(CONTENT)
    assert not fetch_artifact.fetch_artifact(f"{store}/model.onnx", SHA256, destination)
    assert Store.asked == []


def test_another_file_at_the_place_is_replaced(store: str, tmp_path: Path) -> None:
    destination = tmp_path / "mine.onnx"
    destination.write_bytes(b"an older model")
    assert fetch_artifact.fetch_artifact(f"{store}/model.onnx", SHA256, destination)
    assert destination.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "sha256", "message"),
    [
        ("model.onnx", "0" * 64, "another file, or a damaged one"),
        ("half.onnx", SHA256, "/half.onnx"),
        ("none.onnx", SHA256, "answers 404 Not Found"),
    ],
)
def test_a_failure_leaves_what_was_there(store: str, tmp_path: Path, name: str, sha256: str, message: str) -> None:
    destination = tmp_path / "mine.onnx"
    destination.write_bytes(b"an older model")
    with pytest.raises(FetchError, match=message):
        fetch_artifact.fetch_artifact(f"{store}/{name}?signature=secret", sha256, destination)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("mine.onnx", b"an older model")]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/model.onnx", "model.onnx", "https://", "http://[", ""])
def test_only_http_is_spoken(tmp_path: Path, url: str) -> None:
    with pytest.raises(FetchError, match=r"http:// or https://"):
        fetch_artifact.fetch_artifact(url, SHA256, tmp_path / "mine.onnx")


@pytest.mark.parametrize("sha256", ["", "abc", SHA256 + "0", "g" * 64])
def test_a_checksum_that_is_none_is_refused(store: str, tmp_path: Path, sha256: str) -> None:
    with pytest.raises(FetchError, match="64 hexadecimal digits"):
        fetch_artifact.fetch_artifact(f"{store}/model.onnx", sha256, tmp_path / "mine.onnx")


def test_a_folder_is_no_place_for_it(store: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="is a folder"):
        fetch_artifact.fetch_artifact(f"{store}/model.onnx", SHA256, tmp_path)


def test_a_place_that_cannot_be_written_is_told(store: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match="cannot be written"):
        fetch_artifact.fetch_artifact(f"{store}/model.onnx", SHA256, tmp_path / "file" / "mine.onnx")


def test_nobody_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = "http://user:secret@127.0.0.1:1/model.onnx?token=secret"  # pragma: allowlist secret
    assert main([url, SHA256, str(tmp_path / "mine.onnx")]) == EXIT_FAILED
    message = capsys.readouterr().err
    assert "http://127.0.0.1:1/model.onnx cannot be reached" in message
    assert "secret" not in message
    assert message.count("\n") == 1


def test_the_url_may_come_by_the_environment(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTIFACT_URL", f"{store}/model.onnx?signature=secret\n")  # as files of secrets end
    assert main([SHA256, str(tmp_path / "mine.onnx")]) == EXIT_OK
    assert Store.asked == ["/model.onnx?signature=secret"]


def test_a_url_that_is_given_wins(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTIFACT_URL", "http://127.0.0.1:1/other.onnx")
    assert main([f"{store}/model.onnx", SHA256, str(tmp_path / "mine.onnx")]) == EXIT_OK


@pytest.mark.parametrize("value", [None, "", " "])
def test_no_url_at_all(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ARTIFACT_URL", raising=False)
    if value is not None:
        monkeypatch.setenv("ARTIFACT_URL", value)
    assert main([SHA256, str(tmp_path / "mine.onnx")]) == EXIT_FAILED
    assert "ARTIFACT_URL" in capsys.readouterr().err


SIGNED = "http://127.0.0.1:1/model.onnx?signature=secret"


@pytest.mark.parametrize(
    "words",
    [
        [SIGNED, SHA256],  # no destination
        [SHA256, SIGNED],
        [SHA256, SIGNED, "mine.onnx"],
        [SHA256, "mine.onnx", SIGNED],
        [SIGNED, SHA256, "mine.onnx", "one more"],
        ["mine.onnx", SHA256, SIGNED, "one more"],
        [f"--url={SIGNED}", SHA256, "mine.onnx"],
        [SIGNED],
        [f"{SIGNED} and more", SHA256, "mine.onnx"],
        [f"{SIGNED}\n", SHA256, "mine.onnx"],
        [f"{SIGNED}\u00e9", SHA256, "mine.onnx"],
        ["http://user:secret@127.0.0.1/model.onnx", SHA256, "mine.onnx"],  # pragma: allowlist secret
        ["http://127.0.0.1:secret/model.onnx", SHA256, "mine.onnx"],
        ["//127.0.0.1/model.onnx?signature=secret", SHA256, "mine.onnx"],
        *([f"STORE{path}?signature=secret", SHA256, "mine.onnx"] for path in (*REDIRECTS, "/none.onnx", "/half.onnx")),
    ],
)
@pytest.mark.parametrize("variable", [None, SIGNED])
def test_nothing_that_is_said_holds_a_query(
    words: list[str],
    variable: str | None,
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARTIFACT_URL", raising=False)
    if variable:
        monkeypatch.setenv("ARTIFACT_URL", variable)
    try:
        code: object = main([word.replace("STORE", store) for word in words])
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr()
    assert code in (EXIT_FAILED, 2)
    assert "secret" not in said.out + said.err, said.err
    assert not list(tmp_path.iterdir())


def test_as_a_program_it_needs_nothing_but_the_standard_library(store: str, tmp_path: Path) -> None:
    destination = tmp_path / "mine.onnx"
    code = (
        "import sys, service.fetch_artifact as f; code = f.main(sys.argv[1:]); "
        "print(sorted({'numpy', 'onnxruntime', 'pydantic', 'fastapi'} & set(sys.modules))); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, f"{store}/model.onnx", SHA256, str(destination)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == EXIT_OK, ended.stderr
    assert ended.stdout == f"{destination}: fetched, the checksum is right\n[]\n"
