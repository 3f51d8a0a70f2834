"""Where the limits of this process's control group stand."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")


def cgroup_folders(root: Path = CGROUP_ROOT, membership: Path = MEMBERSHIP) -> list[Path]:
    """The folder of the group and those above it, all of whose limits hold; `root` alone in most containers.

    Args:
        root: Where the file system of control groups is mounted. Below it lie the files of version 2, or a folder for each
            controller of version 1, of which only the root is looked at.
        membership: Tells which group of version 2 it is, as `0::/system.slice/some.service`.
    """
    try:
        lines = membership.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    # A path such as /../other lies outside what this process can see.
    below = [] if ".." in Path(own).parts else [root / own, *(root / own).parents]
    return [*(folder for folder in below if root in folder.parents), root]
