"""What pyproject.toml allows is what `make test-oldest` installs."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("cpu", "read", "export", "train", "dev")
REQUIREMENTS = [Requirement(each) for each in PROJECT["dependencies"]]
REQUIREMENTS += [Requirement(each) for extra in EXTRAS for each in PROJECT["optional-dependencies"][extra]]


def versions(name: str) -> dict[str, str]:
    """Version by package, of a file of constraints."""
    lines = [line.partition("==") for line in (ROOT / name).read_text().splitlines() if "==" in line]
    return {canonicalize_name(package): version for package, _, version in lines}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_floor_is_a_version_that_is_tried(requirement: Requirement) -> None:
    (floor,) = (each.version for each in requirement.specifier if each.operator == ">=")
    name = canonicalize_name(requirement.name)
    assert Version(versions("constraints-oldest.txt")[name]) == Version(floor)
    assert versions("constraints.txt")[name] in requirement.specifier


def test_a_uvicorn_that_nobody_tried_is_not_allowed() -> None:
    (uvicorn,) = (each for each in REQUIREMENTS if each.name == "uvicorn")
    tried = Version(versions("constraints.txt")["uvicorn"])
    assert f"{tried.major}.{tried.minor + 1}.0" not in uvicorn.specifier


def test_a_pillow_that_copies_the_bytes_of_every_tag_is_not_allowed() -> None:
    (pillow,) = {str(each.specifier) for each in REQUIREMENTS if each.name == "pillow"}
    assert "12.9.9" not in Requirement(f"pillow{pillow}").specifier
