"""The memory limit that the kernel's control groups put on this process (versions 1 and 2).

Sources: cgroups(7), and the kernel's cgroup-v2 and cgroup-v1/memory documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Version 1 says "no limit" with the largest multiple of the page size in a signed 64-bit number.
NO_LIMIT = 2**60


def memory_limit(root: Path = Path("/")) -> int | None:
    """The lowest limit on the way from this process's group to the root, in bytes.

    Args:
        root: where /proc and /sys are found; for tests.
    Returns:
        None without a limit, or where it cannot be read.
    """
    limits = [limit for path in _limit_files(root) if (limit := _read_limit(path)) is not None]
    return min(limits, default=None)


def _limit_files(root: Path) -> Iterator[Path]:
    """Every file that may hold a limit of one of this process's groups.

    In a container the path in /proc may be the host's while the mount shows the container's own
    group as its root; files that do not exist are skipped, so both readings are tried.
    """
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    places: tuple[Path, ...]
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            places, name = (mount, mount / "unified"), "memory.max"
        elif "memory" in controllers.split(","):
            places, name = (mount / "memory",), "memory.limit_in_bytes"
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        for place in places:
            for level in (group, *group.parents):
                yield place / level / name


def _read_limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    if not text.isdigit() or int(text) >= NO_LIMIT:  # "max" in version 2
        return None
    return int(text)
