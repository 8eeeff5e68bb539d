"""How much memory this process can still take."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
RECLAIMABLE = ("inactive_file", "active_file", "total_inactive_file", "total_active_file")


def available_memory() -> int | None:
    """Bytes of memory that this process can still take, ``None`` where that is not known.

    That is the least of what the system has, what the process's control group allows (containers,
    queues) and what its address space may grow by: the system ends a process that takes more than
    its group may have, so that no error could be caught.
    """
    known = [_system_free(), _address_space_free(), *_cgroup_free()]
    return min((value for value in known if value is not None), default=None)


def _system_free() -> int | None:
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def _address_space_free() -> int | None:
    """Bytes below ``RLIMIT_AS``; there is none on Windows."""
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        import psutil

        return max(limit - int(psutil.Process().memory_info().vms), 0)
    except ImportError:
        return None


def _cgroup_free() -> Iterator[int]:
    """Bytes below the limit of each control group that the process is in, version 1 and 2."""
    try:
        lines = OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots = [CGROUPS, CGROUPS / "unified"]
            limit, used = "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            roots = [CGROUPS / "memory"]
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        for root in roots:
            folder = root / path.lstrip("/")
            # A container sees its own group as the root, but its path as the host does.
            for group in (folder, *folder.parents):
                free = _below_limit(group, limit, used) if group.is_relative_to(root) else None
                if free is not None:
                    yield free


def _below_limit(group: Path, limit: str, used: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        most = int((group / limit).read_text())
        taken = int((group / used).read_text())
        with contextlib.suppress(OSError, ValueError):
            pairs = (line.split() for line in (group / "memory.stat").read_text().splitlines())
            stat = {name: int(value) for name, value in pairs if name in RECLAIMABLE}
            plain = [stat.get(name, 0) for name in RECLAIMABLE[:2]]
            taken -= sum(stat.get(name, 0) for name in RECLAIMABLE[2:]) or sum(plain)
        return max(most - taken, 0)
    return None
