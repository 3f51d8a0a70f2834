"""What cannot be served ends the start with exit code 3 and one line, whatever the reason."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.server import PATIENCE_S, ROOT, command, environment, failed_start
from tests.toy_artifact import write_artifact

# Root may read and write everything, unless it gives that up.
AS_ANYBODY = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--") if os.geteuid() == 0 else ()


def start(artifact: Path, **settings: object) -> tuple[int, str]:
    """Exit code and stderr of a server that is told to stop as soon as it is ready. It has no folder of its own to write to."""
    arguments = [*AS_ANYBODY, *command("--artifact", str(artifact))]
    variables = environment(port=0, **settings) | {"XDG_CACHE_HOME": str(artifact.parent)}
    with subprocess.Popen(arguments, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "ready after" in line:
                process.terminate()
        return process.wait(PATIENCE_S), "".join(lines)


def one_line(code: int, line: str) -> str:
    assert code == 3, line
    assert line.startswith("parseq-serve: ")
    assert line.count("\n") == 1
    return line


def refused(artifact: Path) -> str:
    """What a process says that may read no more than anybody."""
    return one_line(*start(artifact))


def cannot_be(folder: Path, artifact: Path, **settings: object) -> str:
    """What is said of an artifact or a setting that nobody could serve, whatever they may read."""
    return one_line(*failed_start(folder / "log", "--port", "0", "--artifact", str(artifact), **settings))


def test_an_artifact_that_this_user_may_not_read(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "toy.onnx")
    artifact.chmod(0)
    assert f"{artifact} cannot be read (Permission denied)" in refused(artifact)


def test_an_artifact_in_a_folder_that_this_user_may_not_enter(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    artifact = write_artifact(closed / "toy.onnx")
    closed.chmod(0)
    assert f"{artifact} cannot be read (Permission denied)" in refused(artifact)
    closed.chmod(0o755)


def test_a_folder_without_artifacts_or_that_this_user_may_not_read(tmp_path: Path) -> None:
    assert f"the folder {tmp_path} has no .onnx file" in cannot_be(tmp_path, tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(0)
    assert f"{closed} cannot be read (Permission denied)" in refused(closed)
    closed.chmod(0o755)


def test_an_artifact_with_an_impossible_name(tmp_path: Path) -> None:
    assert "cannot be read (File name too long)" in cannot_be(tmp_path, tmp_path / ("a" * 5000))


@pytest.mark.parametrize("share", [0.0, 0.99])
def test_an_artifact_of_which_the_end_is_missing(tmp_path: Path, share: float) -> None:
    artifact = write_artifact(tmp_path / "toy.onnx")
    content = artifact.read_bytes()
    artifact.write_bytes(content[: int(share * len(content))])
    assert "toy.onnx" in cannot_be(tmp_path, artifact, log_level="error")


def test_a_file_of_keys_that_is_a_folder(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "toy.onnx")
    assert f"PARSEQ_API_KEYS_FILE={tmp_path}" in cannot_be(tmp_path, artifact, api_keys_file=tmp_path)


def test_a_file_of_keys_that_is_a_pipe_or_has_quotation_marks(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "toy.onnx")
    pipe, quoted = tmp_path / "pipe", tmp_path / "quoted"
    os.mkfifo(pipe)
    quoted.write_text("# ours\n'a-key-of-more-than-16-characters'\n")
    assert "is a pipe, not a file" in cannot_be(tmp_path, artifact, api_keys_file=pipe)
    assert "line 2 begins or ends with a quotation mark" in cannot_be(tmp_path, artifact, api_keys_file=quoted)


def test_without_any_folder_to_write_to_it_starts_all_the_same(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    artifact = write_artifact(kept / "toy.onnx")
    kept.chmod(0o555)
    code, log = start(artifact, tune=1)
    kept.chmod(0o755)
    assert code == 0, log
    assert "a restart measures again)" in log
    assert list(kept.iterdir()) == [artifact]
