"""Memory that this process can still allocate."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROCESS_CGROUPS = Path("/proc/self/cgroup")
RECLAIMABLE_COUNTERS = ("inactive_file", "active_file", "total_inactive_file", "total_active_file")


def available_memory() -> int | None:
    """Return the bytes of memory that this process can still allocate, ``None`` if unknown.

    It is the minimum of free system memory, the limit of the control group (containers, queues) and
    the limit of the address space. The system kills a process that exceeds the limit of its group,
    so that no error could be caught.
    """
    limits = [_get_system_free(), _get_address_space_free(), *_iter_cgroup_free()]
    return min((value for value in limits if value is not None), default=None)


def _get_system_free() -> int | None:
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def _get_address_space_free() -> int | None:
    """Return the bytes left below ``RLIMIT_AS``, which does not exist on Windows."""
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


def _iter_cgroup_free() -> Iterator[int]:
    """Yield the bytes left below the limit of each control group, version 1 and 2."""
    try:
        lines = PROCESS_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots = [CGROUP_ROOT, CGROUP_ROOT / "unified"]
            limit_file, usage_file = "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            roots = [CGROUP_ROOT / "memory"]
            limit_file, usage_file = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        for root in roots:
            folder = root / path.lstrip("/")
            # In a container, the own group is the root, but its path is that of the host.
            for group in (folder, *folder.parents):
                free = (
                    _read_cgroup_free(group, limit_file, usage_file)
                    if group.is_relative_to(root)
                    else None
                )
                if free is not None:
                    yield free


def _read_cgroup_free(group: Path, limit_file: str, usage_file: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):  # "max" is not a number
        limit_bytes = int((group / limit_file).read_text())
        used_bytes = int((group / usage_file).read_text())
        with contextlib.suppress(OSError, ValueError):
            pairs = (line.split() for line in (group / "memory.stat").read_text().splitlines())
            stat = {name: int(value) for name, value in pairs if name in RECLAIMABLE_COUNTERS}
            own_counts = [stat.get(name, 0) for name in RECLAIMABLE_COUNTERS[:2]]
            used_bytes -= sum(stat.get(name, 0) for name in RECLAIMABLE_COUNTERS[2:]) or sum(
                own_counts
            )
        return max(limit_bytes - used_bytes, 0)
    return None
