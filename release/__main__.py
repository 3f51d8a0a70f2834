"""`python -m release` (make release): build all that a release has, in `dist/`, and publish nothing (docs/releasing.md)."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from release.provenance import sign, write_statement, write_sums
from release.state import ReleaseError, State, notes_of, state_of

TREE: Final = Path(__file__).parents[1]
IMAGES: Final = ("cpu", "gpu")
BUILD: Final = "import sys; sys.path.insert(0, 'release'); import wheel_backend as b; b.build_{kind}(sys.argv[1])"
EXIT_REFUSED: Final = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Build; the exit code is 3 when there can be no release of this tree."""
    parser = argparse.ArgumentParser(prog="python -m release", description="Build what a release has; publish nothing.")
    parser.add_argument("--output", type=Path, default=TREE / "dist", help="folder to write (default: dist); emptied first")
    parser.add_argument("--tag", help="the tag that asks for this release; it must be that of the version")
    parser.add_argument("--check", action="store_true", help="only say whether there could be a release")
    parser.add_argument("--notes", metavar="VERSION", help="only print the notes of a version")
    options = parser.parse_args(argv)
    try:
        if options.notes:
            print(notes_of(TREE, options.notes), end="")
            return 0
        state = state_of(TREE, options.tag)
        print(f"parseq-service {state.version}, commit {state.commit[:12]}")
        if not options.check:
            _build(state, options.output)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return EXIT_REFUSED
    return 0


def _build(state: State, output: Path) -> None:
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(state.commit_time)}
    for kind in ("sdist", "wheel"):
        _run([sys.executable, "-c", BUILD.format(kind=kind), str(output.resolve())], environment)
    cyclonedx = Path(sys.executable).with_name("cyclonedx-py")
    for image in IMAGES:
        target = output / f"parseq-service-{state.version}-{image}.cdx.json"
        requirements = TREE / "docker" / f"requirements-{image}.txt"
        _run([str(cyclonedx), "requirements", "--output-format", "JSON", "--output-file", str(target), str(requirements)])
    notes = output / "RELEASE_NOTES.md"
    notes.write_text(state.notes, encoding="utf-8")
    built = [path for path in output.iterdir() if path != notes]
    provenance = write_statement(output / f"parseq-service-{state.version}.intoto.json", built, state)
    sums = write_sums(output, [*built, provenance])
    signed = sign([sums, provenance], os.environ)
    for path in sorted(output.iterdir()):
        print(f"  {path.relative_to(output)}  {path.stat().st_size:,} bytes")
    print(signed)


def _run(command: Sequence[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=TREE, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ReleaseError(f"{' '.join(command)[:120]}: {(done.stderr or done.stdout).strip()[-1000:]}")


if __name__ == "__main__":
    sys.exit(main())
