"""The programs that build and run images here, and how to get them."""

from __future__ import annotations

import os
import shutil
import sys

from steps import CheckError, check, note, run

PACKAGES = {"buildah": "buildah", "podman": "podman", "runc": "runc", "debootstrap": "debootstrap"}
"""Debian package by program."""
INSTALL = ["apt-get", "install", "--yes", "--no-install-recommends"]


def get_ready() -> None:
    """See that everything is there, and install what is not.

    Raises:
        CheckError: it cannot be had here; the message says what to do.
    """
    check(sys.platform == "linux", "this is Linux")
    if os.geteuid() != 0:
        raise CheckError("run it as root: debootstrap, and buildah without user namespaces, need it")
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if missing:
        cure = " ".join([*INSTALL, *missing])
        if shutil.which("apt-get") is None:
            raise CheckError(f"{', '.join(missing)} must be installed; on Debian or Ubuntu: {cure}")
        note(f"installing what is missing: {cure}")
        run(["apt-get", "update"])
        run([*INSTALL, *missing])
    check(all(map(shutil.which, PACKAGES)), f"{', '.join(PACKAGES)} are installed")
