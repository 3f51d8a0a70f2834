"""Base images made of Debian packages under the names that the Dockerfiles ask for, and the project's images on them."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Final

from steps import ROOT, WORK, check, heading, note, passed, run

SUITE: Final = "trixie"
STORAGE: Final = ["--root", str(WORK / "storage"), "--runroot", str(WORK / "run")]
"""Of its own: no image of this machine is touched."""
BUILDAH: Final = ["buildah", *STORAGE]
PODMAN: Final = ["podman", *STORAGE, "--runtime", "runc", "--cgroup-manager", "cgroupfs"]
CPU_FILE: Final = ROOT / "docker" / "cpu.Dockerfile"
GPU_FILE: Final = ROOT / "Dockerfile"
CA_BUNDLE: Final = Path("/etc/ssl/certs/ca-certificates.crt")
ISOLATION: Final = ["--isolation", "chroot", "--network", "host"]
NOT_IN_SLIM: Final = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "var/lib/apt/lists",
    "var/cache/apt",
]
"""What the slim variants of the real bases do without as well."""
APT_SETTINGS: Final = 'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\nAPT::Keep-Downloaded-Packages "false";\n'
"""apt keeps no cache in the real bases either."""
PIP_SETTINGS: Final = ("index-url", "extra-index-url", "proxy", "trusted-host")


def base_name(dockerfile: Path) -> str:
    """The image that a Dockerfile builds on by default."""
    found = re.search(r"^ARG \w+_IMAGE=(\S+)$", dockerfile.read_text(), re.M)
    assert found, f"{dockerfile.name} names no base"
    return found[1]


def make_bases() -> None:
    """Save a bare Debian under the name of NVIDIA's image, and the same with Python under that of Python's."""
    heading(f"Bases, made of Debian {SUITE} packages under the names that the Dockerfiles ask for")
    archive = WORK / f"{SUITE}.tar"
    if not archive.exists():
        _bootstrap(archive)
    for dockerfile in (GPU_FILE, CPU_FILE):
        run([*PODMAN, "import", archive, full_name(base_name(dockerfile))])
    _add_python(full_name(base_name(CPU_FILE)))
    for dockerfile in (GPU_FILE, CPU_FILE):
        passed(f"{base_name(dockerfile)}: {size_mb(full_name(base_name(dockerfile)))} MB")
    note("the first has no CUDA and is no Ubuntu: what needs a GPU is not proven here")


def _bootstrap(archive: Path) -> None:
    folder = WORK / "rootfs"
    shutil.rmtree(folder, ignore_errors=True)
    run(["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, folder], WORK / "debootstrap.log")
    for name in NOT_IN_SLIM:
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "etc" / "apt" / "apt.conf.d" / "no-cache").write_text(APT_SETTINGS)
    draft = archive.with_suffix(".draft")
    run(["tar", "--one-file-system", "-C", folder, "-cf", draft, "."])
    draft.rename(archive)
    shutil.rmtree(folder)


def _add_python(image: str) -> None:
    container = run([*BUILDAH, "from", "--pull-never", image]).strip()
    install = "apt-get update -q && apt-get install -q -y --no-install-recommends python3 python3-pip"
    clean = "rm -rf " + " ".join(f"/{name}/*" for name in NOT_IN_SLIM)
    run([*BUILDAH, "run", *ISOLATION, container, "--", "sh", "-ec", f"{install} && {clean}"])
    run([*BUILDAH, "commit", "--squash", "--rm", container, image])


def build(dockerfile: Path, image: str) -> None:
    """Build a Dockerfile as it is; this machine's certificates and package index are lent to the build from outside."""
    pip_settings = WORK / "pip.conf"
    pip_settings.write_text(_pip_settings())
    lent = [f"{pip_settings}:/etc/pip.conf:ro"] + ([f"{CA_BUNDLE}:{CA_BUNDLE}:ro"] if CA_BUNDLE.exists() else [])
    volumes = [word for volume in lent for word in ("--volume", volume)]
    options = ["--pull-never", *ISOLATION, "--format", "docker", *volumes, "--file", str(dockerfile), "--tag", image]
    log = WORK / f"{image.replace(':', '-')}.log"
    run([*BUILDAH, "bud", *options, ROOT], log)
    passed(f"buildah builds {dockerfile.relative_to(ROOT)} with every requirement checked against its hash")


def _pip_settings() -> str:
    """The package index that this machine's pip uses, without folders of this machine."""
    lines = ["[global]"] + ([f"cert = {CA_BUNDLE}"] if CA_BUNDLE.exists() else [])
    for line in run([sys.executable, "-m", "pip", "config", "list"]).splitlines():
        key, _, value = line.partition("=")
        setting, urls = key.rpartition(".")[2], value.strip("'\"")
        if setting in PIP_SETTINGS and "file:" not in urls:
            lines.append(f"{setting} = {urls}")
    return "\n".join(lines) + "\n"


def full_name(image: str) -> str:
    """As buildah and podman look it up."""
    return f"docker.io/{image}" if "/" in image else f"docker.io/library/{image}"


def size_mb(image: str) -> int:
    """All layers together, not compressed; megabytes of 10^6 bytes."""
    return round(int(run([*PODMAN, "image", "inspect", "--format", "{{.Size}}", image])) / 1e6)


def check_size(image: str, dockerfile: Path, most_mb: int | None) -> None:
    """Tell the size of an image, and that of what the Dockerfile added to its base."""
    whole, base = size_mb(image), size_mb(full_name(base_name(dockerfile)))
    text = f"{image}: {whole} MB, of which {whole - base} MB on top of the base"
    check(most_mb is None or whole <= most_mb, text + (f"; at most {most_mb} MB" if most_mb else ""))
