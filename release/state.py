"""What a release is made of: the version, the commit, the notes; and whether they fit together."""

from __future__ import annotations

import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VERSION: Final = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
OF_IMAGES: Final = re.compile(
    r"(?:parseq-service:|image\.version=\"|newTag: \"?|kubernetes\.io/version: \"?)(\d+\.\d+\.\d+\w*)"
)
NAME_THE_VERSION: Final = (
    "Dockerfile",
    "docker/cpu.Dockerfile",
    "docker-compose.yml",
    "README.md",
    "docs/container_images.md",
    "k8s/base/kustomization.yaml",
    "k8s/overlays/cpu/kustomization.yaml",
    "k8s/overlays/gpu/kustomization.yaml",
    "k8s/examples/kserve/kustomization.yaml",
)
"""Files that name the version of the images; that of the project is in `pyproject.toml` alone."""


class ReleaseError(RuntimeError):
    """There can be no release of this tree; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class State:
    """What is released."""

    version: str
    commit: str
    commit_time: int
    """Seconds since the epoch; what is built says it is of that time."""
    source: str
    """Where the repository is, as `git remote` has it; empty: nowhere."""
    notes: str
    """Release notes, in Markdown."""


def git(tree: Path, *arguments: str) -> str:
    """What a command of git prints.

    Raises:
        ReleaseError: It failed.
    """
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    if done.returncode:
        raise ReleaseError(f"git {' '.join(arguments)}: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()


def state_of(tree: Path, tag: str | None = None) -> State:
    """Look at a tree that is to be released.

    Args:
        tree: Root of the repository.
        tag: The tag that asked for the release; it must be that of the version.

    Raises:
        ReleaseError: Something does not fit.
    """
    if changed := git(tree, "status", "--porcelain"):
        raise ReleaseError(f"the tree has changes that are in no commit: commit or remove them\n{changed}")
    version = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if not VERSION.fullmatch(version):
        raise ReleaseError(f"pyproject.toml: {version!r} is no version of a release, such as 1.2.3")
    if tag is not None and tag != f"v{version}":
        raise ReleaseError(f"the tag is {tag}, and the version in pyproject.toml {version}: the tag must be v{version}")
    for name in NAME_THE_VERSION:
        path = tree / name
        for told in OF_IMAGES.findall(path.read_text(encoding="utf-8")) if path.exists() else ():
            if told != version:
                raise ReleaseError(f"{name} names {told}, and pyproject.toml {version}: change it there")
    remotes = git(tree, "remote").split()
    source = git(tree, "remote", "get-url", remotes[0]) if remotes else ""
    source = re.sub(r"(?<=://)[^/@]*@", "", source)  # no password
    commit, time = git(tree, "show", "--no-patch", "--format=%H %ct", "HEAD").split()
    return State(version, commit, int(time), source, notes_of(tree, version))


def notes_of(tree: Path, version: str) -> str:
    """The release notes: what docs/releases has for users, if it has, then the section of the changelog.

    Raises:
        ReleaseError: The changelog has no such section, or nothing in it.
    """
    changelog = (tree / "CHANGELOG.md").read_text(encoding="utf-8")
    section = section_of(changelog, version)
    written = tree / "docs" / "releases" / f"{version}.md"
    return f"{written.read_text(encoding='utf-8').strip()}\n\n{section}\n" if written.exists() else f"{section}\n"


def section_of(changelog: str, version: str) -> str:
    """The section of a version, without its heading.

    Raises:
        ReleaseError: There is none, or nothing in it.
    """
    heading = rf"^## \[{re.escape(version)}\](?P<date>[^\n]*)$"
    found = re.search(rf"{heading}(?P<text>.*?)(?=^## |^\[[^\]]+\]: |\Z)", changelog, re.M | re.S)
    if found is None:
        raise ReleaseError(
            f"CHANGELOG.md has no section `## [{version}] - DATE`: rename `## [Unreleased]`, and begin a new one"
        )
    if not re.fullmatch(r" - \d{4}-\d\d-\d\d", found["date"].rstrip()):
        raise ReleaseError(f"CHANGELOG.md: the heading of {version} must be `## [{version}] - YEAR-MONTH-DAY`")
    if not (text := found["text"].strip()):
        raise ReleaseError(f"CHANGELOG.md: the section of {version} is empty")
    return text
