"""Reading Dockerfiles and `.dockerignore` as far as the tests need it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
DOCKERFILES = [ROOT / "Dockerfile", ROOT / "docker" / "cpu.Dockerfile"]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, its continued lines joined."""

    name: str
    value: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.value)

    @property
    def exec_form(self) -> list[str]:
        """The command of an ENTRYPOINT or HEALTHCHECK. Fails for the shell form: a shell would get the signals."""
        command: list[str] = json.loads(self.value[self.value.index("[") :])
        return command


def read_stages(path: Path) -> list[list[Instruction]]:
    """The stages of a Dockerfile; what stands before the first is the first."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    stages: list[list[Instruction]] = [[]]
    for statement in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, value = statement.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append(Instruction(name, value.strip()))
    return stages


def final_stage(path: Path) -> list[Instruction]:
    return read_stages(path)[-1]


def pairs(stage: list[Instruction], name: str) -> dict[str, str]:
    """What the ENV or LABEL instructions of a stage set."""
    words = [word for instruction in stage if instruction.name == name for word in instruction.words]
    return dict(word.split("=", 1) for word in words)


def is_sent(path: str, dockerignore: str) -> bool:
    """Whether a file gets into a build: the last line that matches it or a folder above it decides."""
    sent = True
    for line in dockerignore.splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        pattern = re.compile(_as_regex(rule.removeprefix("!").strip("/")))
        if any(pattern.fullmatch(str(part)) for part in (PurePosixPath(path), *PurePosixPath(path).parents)):
            sent = rule.startswith("!")
    return sent


def _as_regex(glob: str) -> str:
    tokens = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(tokens.get(token, re.escape(token)) for token in re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", glob))
