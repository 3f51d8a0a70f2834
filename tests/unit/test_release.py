"""When there is a release, and what its provenance says. Building it all is `make release`."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from release.provenance import sign, statement, write_sums
from release.state import ReleaseError, State, git, notes_of, section_of, state_of

STATE = State("1.2.3", "c" * 40, 0, "https://example.org/parseq.git", "notes")
CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.3] - 2026-01-31

### Added

- A thing.

## [1.2.2] - 2026-01-01

- Another.

[1.2.3]: https://example.org
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "Dockerfile").write_text('LABEL org.opencontainers.image.version="1.2.3"\n')
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "remote", "add", "origin", "https://user:secret@example.org/parseq.git")  # pragma: allowlist secret
    commit(tmp_path)
    return tmp_path


def commit(tree: Path) -> None:
    git(tree, "add", "--all")
    git(tree, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "--quiet", "--message=x")


def test_a_clean_tree_with_its_section_is_a_release(tree: Path) -> None:
    state = state_of(tree, "v1.2.3")
    assert (state.version, state.notes, state.source) == (
        "1.2.3",
        "### Added\n\n- A thing.\n",
        "https://example.org/parseq.git",
    )
    assert state.commit == git(tree, "rev-parse", "HEAD")
    (tree / "docs" / "releases").mkdir(parents=True)
    (tree / "docs" / "releases" / "1.2.3.md").write_text("For users.\n")
    assert notes_of(tree, "1.2.3") == "For users.\n\n### Added\n\n- A thing.\n"


def replace(name: str, before: str, after: str) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        text = (tree / name).read_text()
        assert before in text
        (tree / name).write_text(text.replace(before, after))

    return change


@pytest.mark.parametrize(
    ("change", "committed", "told"),
    [
        (lambda tree: (tree / "new").touch(), False, "in no commit.*\n.*new"),
        (replace("pyproject.toml", "1.2.3", "1.2.4"), True, "Dockerfile names 1.2.3"),
        (replace("pyproject.toml", "1.2.3", "1.2.3.dev1"), True, "no version of a release"),
        (replace("Dockerfile", "1.2.3", "1.2.2"), True, "Dockerfile names 1.2.2, and pyproject.toml 1.2.3"),
        (replace("CHANGELOG.md", "## [1.2.3] - 2026-01-31", "## Other"), True, "no section"),
        (replace("CHANGELOG.md", " - 2026-01-31", ""), True, "YEAR-MONTH-DAY"),
        (replace("CHANGELOG.md", "### Added\n\n- A thing.\n", ""), True, "is empty"),
    ],
)
def test_what_does_not_fit_is_refused(tree: Path, change: Callable[[Path], None], committed: bool, told: str) -> None:
    change(tree)
    if committed:
        commit(tree)
    with pytest.raises(ReleaseError, match=told):
        state_of(tree)


def test_a_tag_of_another_version_is_refused(tree: Path) -> None:
    with pytest.raises(ReleaseError, match=r"the tag must be v1\.2\.3"):
        state_of(tree, "v1.2.4")


def test_a_section_ends_where_the_next_begins() -> None:
    assert section_of(CHANGELOG, "1.2.2") == "- Another."


def test_the_provenance_names_what_was_built_and_of_what(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"wheel")
    document = json.loads(json.dumps(statement([tmp_path / "a.whl"], STATE, datetime(2026, 1, 31, tzinfo=UTC), {})))
    digest = hashlib.sha256(b"wheel").hexdigest()
    assert document["subject"] == [{"name": "a.whl", "digest": {"sha256": digest}}]
    assert document["predicateType"] == "https://slsa.dev/provenance/v1"
    [source] = document["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert source == {"uri": "git+https://example.org/parseq.git", "digest": {"gitCommit": "c" * 40}}
    assert document["predicate"]["runDetails"]["metadata"]["finishedOn"] == "2026-01-31T00:00:00Z"
    sums = write_sums(tmp_path, [tmp_path / "a.whl"])
    assert sums.read_text() == f"{digest}  a.whl\n"


def test_without_a_key_nothing_is_signed_and_that_is_told(tmp_path: Path) -> None:
    assert "RELEASE_GPG_KEY" in sign([tmp_path / "a"], {})


def test_a_key_without_its_program_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ReleaseError, match="cosign is not installed"):
        sign([tmp_path / "a"], {"RELEASE_COSIGN_KEY": "cosign.key"})


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")
def test_a_signature_can_be_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    key = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "x@example.org", "ed25519"]
    subprocess.run(key, check=True, capture_output=True)
    (tmp_path / "SHA256SUMS").write_text("0  a\n")
    assert "signed with gpg" in sign([tmp_path / "SHA256SUMS"], {"RELEASE_GPG_KEY": "x@example.org"})
    subprocess.run(["gpg", "--verify", str(tmp_path / "SHA256SUMS.asc")], check=True, capture_output=True)
    subprocess.run(["gpgconf", "--kill", "all"], check=False, capture_output=True)


def test_the_version_stands_in_one_place() -> None:
    """Whatever else names it agrees (`release.state` checks that of each release)."""
    from release.state import NAME_THE_VERSION, OF_IMAGES

    told = {version for name in NAME_THE_VERSION for version in OF_IMAGES.findall((ROOT / name).read_text())}
    assert len(told) == 1
    assert f'version = "{told.pop()}"' in (ROOT / "pyproject.toml").read_text()
