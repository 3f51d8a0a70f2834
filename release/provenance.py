"""Checksums, where what was built came from, and signatures."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from release.state import ReleaseError, State

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:parseq:build:make-release:v1"
SUMS: Final = "SHA256SUMS"


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path, files: Sequence[Path]) -> Path:
    """Write the digests as `sha256sum --check` reads them."""
    target = folder / SUMS
    target.write_text("".join(f"{sha256(path)}  {path.name}\n" for path in sorted(files)), encoding="utf-8")
    return target


def statement(files: Sequence[Path], state: State, finished: datetime, environ: Mapping[str, str]) -> dict[str, Any]:
    """What was built, of which commit, with what: an in-toto statement with SLSA's provenance, version 1.

    It says what the machine that built says of itself: it is worth as much as its signature.

    Args:
        files: What was built.
        state: Of what.
        finished: When.
        environ: Of the process: GitHub's runners tell of themselves in it.
    """
    runner = {name.lower(): environ[name] for name in ("GITHUB_RUN_ID", "GITHUB_WORKFLOW_REF") if name in environ}
    builder = environ.get("GITHUB_WORKFLOW_REF", f"urn:parseq:builder:{platform.system().lower()}-{platform.machine()}")
    return {
        "_type": STATEMENT,
        "subject": [{"name": path.name, "digest": {"sha256": sha256(path)}} for path in sorted(files)],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"version": state.version, "source": state.source, "ref": f"v{state.version}"},
                "internalParameters": {"python": platform.python_version(), **runner},
                "resolvedDependencies": [
                    {"uri": f"git+{state.source}" if state.source else "git", "digest": {"gitCommit": state.commit}}
                ],
            },
            "runDetails": {
                "builder": {"id": builder, "version": {"python": sys.version.split()[0]}},
                "metadata": {"finishedOn": finished.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")},
            },
        },
    }


def write_statement(target: Path, files: Sequence[Path], state: State) -> Path:
    """Write the provenance."""
    document = statement(files, state, datetime.now(UTC), os.environ)
    target.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return target


def sign(files: Sequence[Path], environ: Mapping[str, str]) -> str:
    """Sign files, each beside itself, with the key that the environment names; returns what was done, in a line.

    Args:
        files: The checksums and the provenance: through them everything is signed.
        environ: `RELEASE_GPG_KEY` names a key of gpg, `RELEASE_COSIGN_KEY` a file or address of one of cosign.

    Raises:
        ReleaseError: A key is named, but cannot be used.
    """
    if key := environ.get("RELEASE_GPG_KEY"):
        commands = [["gpg", "--batch", "--yes", "--armor", "--local-user", key, "--detach-sign", str(path)] for path in files]
    elif key := environ.get("RELEASE_COSIGN_KEY"):
        commands = [
            ["cosign", "sign-blob", "--yes", "--key", key, "--bundle", f"{path}.sigstore.json", str(path)] for path in files
        ]
    else:
        return "not signed: RELEASE_GPG_KEY (a key of gpg) or RELEASE_COSIGN_KEY (a key of cosign) names the key to sign with"
    program = commands[0][0]
    if shutil.which(program) is None:
        raise ReleaseError(f"a key of {program} is named, and {program} is not installed")
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise ReleaseError(f"{program} did not sign: {done.stderr.strip()}")
    return f"signed with {program}: {', '.join(path.name for path in files)}"
