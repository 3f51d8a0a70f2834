"""The workflows of GitHub Actions, as far as that can be told without running them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SOURCES = ("actions/", "docker/", "sigstore/", "pypa/", "./.github/")
each = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def test_actionlint_finds_nothing() -> None:
    actionlint = Path(sys.executable).with_name("actionlint")
    ended = subprocess.run([str(actionlint), "-no-color", *map(str, WORKFLOWS)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@each
def test_a_workflow_may_only_read_unless_a_job_says_otherwise(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert "uses" in job or job["timeout-minutes"] <= 120, name
        for step in job.get("steps", ()):
            if str(step.get("uses", "")).startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name


@each
def test_actions_come_from_few_hands_at_a_named_version(path: Path) -> None:
    used = re.findall(r"uses: (\S+)", path.read_text())
    assert used
    for action in used:
        assert action.startswith(SOURCES), action
        assert action.startswith("./") or re.search(r"@(v\d+|release/v\d+|[0-9a-f]{40})$", action), action


@each
def test_what_others_may_choose_is_never_part_of_a_script(path: Path) -> None:
    for job in read(path)["jobs"].values():
        for step in job.get("steps", ()):
            assert "${{" not in step.get("run", ""), step


def test_files_and_commands_that_workflows_name_exist() -> None:
    text = "\n".join(path.read_text() for path in WORKFLOWS)
    targets = set(re.findall(r"\bmake ([a-z][a-z-]*)", text))
    makefile = (ROOT / "Makefile").read_text()
    assert {"release", "verify-wheel"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
    for name in re.findall(r"file: ([\w./]+ockerfile)", text):
        assert (ROOT / name).is_file(), name


def test_nothing_is_published_before_the_tests() -> None:
    jobs = read(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    assert any(step.get("run") == ".ci/run" for step in jobs["build"]["steps"])
    for name in ("images", "index", "page"):
        assert "build" in jobs[name]["needs"]
    # No password for the index: it trusts the workflow.
    assert jobs["index"]["permissions"] == {"id-token": "write"}
    assert "password" not in str(jobs["index"])
