from __future__ import annotations

import socket
from pathlib import Path

import pytest

from service.__main__ import EXIT_STARTUP_FAILED, main
from service.config import Settings, env_name
from service.serving import listen
from tests.toy_artifact import write_artifact


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(env_name(name), raising=False)
    monkeypatch.setenv("PARSEQ_TUNE", "0")


@pytest.fixture
def artifact(tmp_path: Path) -> str:
    return str(write_artifact(tmp_path / "toy.onnx"))


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line a start leaves that fails."""
    assert main(arguments) == EXIT_STARTUP_FAILED
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("parseq-serve: ")
    assert err.count("\n") == 1
    return err


def test_artifacts_that_cannot_be_served(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"junk\n")
    bare = write_artifact(tmp_path / "bare.onnx", metadata={})
    assert "there is no artifact" in failure(capsys, "--artifact", str(tmp_path / "none.onnx"))
    assert "not an ONNX file" in failure(capsys, "--artifact", str(junk))
    assert "no artifact metadata" in failure(capsys, "--artifact", str(bare))


@pytest.mark.parametrize(("name", "value"), [("PARSEQ_MAX_BATCH_SIZE", "-1"), ("PARSEQ_PROVIDER", "cuda")])
def test_settings_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, artifact: str, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert f"{name}={value}" in failure(capsys, "--artifact", artifact)


def test_ports_that_cannot_be_used(capsys: pytest.CaptureFixture[str], artifact: str) -> None:
    assert "--port=lots" in failure(capsys, "--artifact", artifact, "--port", "lots")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = failure(capsys, "--artifact", artifact, "--host", "127.0.0.1", "--port", port)
        assert f"cannot listen on 127.0.0.1 port {port}" in line
        assert "--port" in line


def test_a_slip_in_a_variable_is_told_at_the_start(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PARSEQ_MAX_BATCHSIZE", "4")
    main(["--artifact", str(tmp_path / "none.onnx")])
    assert "did you mean PARSEQ_MAX_BATCH_SIZE?" in caplog.text


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--colour", "blue"])
    assert caught.value.code == 2
    assert "usage: parseq-serve" in capsys.readouterr().err


def has_ipv6() -> bool:
    """Whether this machine has an address to try it with."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("::", ("127.0.0.1", "::1")),
        ("0::0", ("127.0.0.1", "::1")),
        ("0.0.0.0", ("127.0.0.1",)),
        ("::1", ("::1",)),
        ("127.0.0.1", ("127.0.0.1",)),
    ],
)
def test_all_addresses_are_those_of_both_families(host: str, reached: tuple[str, ...]) -> None:
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        found = []
        for address in ("127.0.0.1", "::1"):
            try:
                socket.create_connection((address, port), timeout=60).close()
            except ConnectionRefusedError:
                continue
            found.append(address)
    assert tuple(found) == reached
