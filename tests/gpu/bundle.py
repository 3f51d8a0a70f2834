"""Make a folder with which a machine without package registries can check its GPU: pieces of one archive, and a script.

    python -m tests.gpu.bundle MATERIAL [--output build/gpu-bundle] [--python 3.12]    (make verify-gpu-bundle)

In the archive: the project's files that git tracks, the material of `tests.gpu.write_material` (so that no torch is needed
there), and wheels. Copy the folder to the machine and run `sh run.sh` in it; that checks, joins and installs everything, and
fetches nothing. With `--without-nvidia` the wheels of CUDA and cuDNN are left out, two gigabytes: the machine must then have
both where the loader finds them (LD_LIBRARY_PATH), CUDA 13 and cuDNN 9.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

from tqdm import tqdm

from tests.gpu.material import MaterialError, read_material

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "build" / "gpu-bundle"
SCRIPT = Path(__file__).with_name("run_bundle.sh")
PIECE_MB = 50
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64", "linux_x86_64")
RUNTIME = "onnxruntime-gpu"
BESIDES = ("onnx", "tqdm")
"""What `benchmarks/` needs and the service does not."""
EXIT_USAGE = 2


class BundleError(RuntimeError):
    """There can be no bundle; the message says why."""


class PieceWriter:
    """A file that is written as many, none larger than a size.

    Args:
        folder: For `piece.000` and so on.
        piece_bytes: The size.
        show: Called with the number of bytes that were written.
    """

    def __init__(self, folder: Path, piece_bytes: int, show: tqdm[None]) -> None:
        self.sums: list[str] = []
        self._folder, self._piece_bytes, self._show = folder, piece_bytes, show
        self._file: IO[bytes] | None = None
        self._left = 0
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Append to the last piece, and begin new ones as they are needed."""
        view = memoryview(data)
        while view:
            if self._file is None:
                self._file = (self._folder / f"piece.{len(self.sums):03}").open("wb")
                self._left, self._hash = self._piece_bytes, hashlib.sha256()
            part = view[: self._left]
            self._file.write(part)
            self._hash.update(part)
            self._left -= len(part)
            self._show.update(len(part))
            view = view[len(part) :]
            if not self._left:
                self.close()
        return len(data)

    def close(self) -> None:
        """End the last piece."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self.sums.append(f"{self._hash.hexdigest()}  pieces/piece.{len(self.sums):03}")


def requirements(constraints: str, *, with_nvidia: bool) -> list[str]:
    """What is installed on the machine: the service's own dependencies, the runtime, and what the check needs besides.

    Args:
        constraints: The contents of constraints.txt, whose versions are taken.
        with_nvidia: Whether CUDA and cuDNN come as wheels.
    """
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", constraints, re.M))
    runtime = f"{RUNTIME}{'[cuda,cudnn]' if with_nvidia else ''}=={pinned['onnxruntime']}"
    return [*project["dependencies"], *BESIDES, runtime]


def download(folder: Path, wanted: Sequence[str], python: str, platforms: Sequence[str]) -> None:
    """Let pip fetch wheels for another Python into `folder`; it shows its progress.

    Raises:
        BundleError: It could not.
    """
    chosen = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    for platform in platforms:
        chosen += ["--platform", platform]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        # A runtime for the CPU beside the one for GPUs is found first, so whoever wants it must not get it here.
        file.writelines(
            line for line in (ROOT / "constraints.txt").open(encoding="utf-8") if not line.startswith("onnxruntime")
        )
        file.flush()
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--dest", str(folder)]
        code = subprocess.run([*command, "--constraint", file.name, *chosen, *wanted], check=False).returncode
    if code != 0:
        raise BundleError(
            f"pip could not fetch the wheels for Python {python}: see above; --wheels FOLDER takes those of a folder"
        )


def tracked_files() -> list[Path]:
    """What git tracks, and is there.

    Raises:
        BundleError: This is no checkout.
    """
    command = ["git", "ls-files", "-z"]
    try:
        told = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BundleError(f"git must list the project's files, and cannot: {error}") from error
    return [path for name in told.decode().split("\0") if name and (path := ROOT / name).is_file()]


def write_bundle(
    output: Path, material: Path, wheels: Sequence[Path], wanted: Sequence[str], python: str, piece_bytes: int
) -> int:
    """Write pieces, checksums and script; the number of pieces.

    Raises:
        BundleError: There is too little room.
    """
    members = [(path, f"project/{path.relative_to(ROOT)}") for path in tracked_files()]
    members += [(path, f"material/{path.name}") for path in sorted(material.iterdir()) if path.is_file()]
    members += [(path, f"wheels/{path.name}") for path in wheels]
    size = sum(path.stat().st_size for path, _ in members)
    pieces = output / "pieces"
    shutil.rmtree(pieces, ignore_errors=True)
    pieces.mkdir(parents=True)
    if shutil.disk_usage(output).free < size:
        raise BundleError(f"the bundle takes {size / 1e6:.0f} MB, and {output} has not so much room")
    with tempfile.TemporaryDirectory() as folder, tqdm(total=size, unit="B", unit_scale=True, desc="pieces") as bar:
        listed = Path(folder) / "requirements.txt"
        listed.write_text("".join(f"{line}\n" for line in wanted), encoding="utf-8")
        writer = PieceWriter(pieces, piece_bytes, bar)
        # Not compressed: weights and wheels do not become smaller.
        with tarfile.open(mode="w|", fileobj=cast("IO[bytes]", writer)) as archive:
            for path, name in [(listed, listed.name), *members]:
                archive.add(path, name, recursive=False, filter=_nobodys)
        writer.close()
    (output / "pieces.sha256").write_text("".join(f"{line}\n" for line in writer.sums), encoding="utf-8")
    script = SCRIPT.read_text(encoding="utf-8").replace("@PYTHON@", python).replace("@COUNT@", str(len(writer.sums)))
    (output / "run.sh").write_text(script, encoding="utf-8")
    return len(writer.sums)


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the names of whoever made it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu.bundle", description=(__doc__ or ""), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser.add_argument("material", type=Path, help="folder of tests.gpu.write_material")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the folder to make (default: build/gpu-bundle)")
    parser.add_argument("--python", default=own, metavar="X.Y", help="Python of the machine (default: %(default)s)")
    parser.add_argument("--platform", nargs="+", default=PLATFORMS, help="as pip calls them (default: Linux on x86-64)")
    parser.add_argument("--without-nvidia", action="store_true", help="leave the wheels of CUDA and cuDNN out")
    parser.add_argument("--piece-mb", type=float, default=PIECE_MB, help="largest piece, in MB (default: %(default)s)")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="take the wheels of this folder, and fetch none")
    parser.add_argument("--requirement", nargs="+", metavar="NAME", help="install these instead (to try the bundle itself)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = parse_args(arguments)
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    wanted = args.requirement or requirements(constraints, with_nvidia=not args.without_nvidia)
    try:
        read_material(args.material)
        if not re.fullmatch(r"\d\.\d+", args.python):
            raise BundleError(f"--python {args.python} is no version such as 3.12")
        if not args.piece_mb > 0:
            raise BundleError(f"--piece-mb {args.piece_mb:g} must be more than 0")
        args.output.mkdir(parents=True, exist_ok=True)
        folder = args.wheels or args.output.with_name(f"{args.output.name}-wheels-{args.python}")
        if args.wheels is None:
            download(folder, wanted, args.python, args.platform)
        wheels = sorted(folder.glob("*.whl"))
        if not wheels:
            raise BundleError(f"{folder} has no wheels")
        count = write_bundle(args.output, args.material, wheels, wanted, args.python, int(args.piece_mb * 1e6))
    except (BundleError, MaterialError) as error:
        print(f"verify-gpu-bundle: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(f"{args.output}: {count} pieces of at most {args.piece_mb:g} MB. Copy the folder, then: sh run.sh")
    return 0


if __name__ == "__main__":
    sys.exit(main())
