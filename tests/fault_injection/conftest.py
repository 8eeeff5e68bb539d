"""Full disks and removed folders, as real mounts where the system permits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.kill_loops import make_project
from helpers.small_disk import Disk

from napari_dycon.project.store import Project

MOUNTS = sys.platform == "linux" and os.geteuid() == 0


def _run_mount_command(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 6 MB."""
    if not MOUNTS:
        pytest.skip("only root on Linux can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    _run_mount_command("-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder))
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def project_on_disk(disk: Disk) -> Project:
    """Project on the small disk."""
    return make_project(disk.path)


@pytest.fixture
def read_only_project(project: Project) -> Iterator[Project]:
    """Project on a read-only file system, which root cannot write to either."""
    if not MOUNTS:
        pytest.skip("only root on Linux can mount a folder read-only")
    _run_mount_command("--bind", str(project.path), str(project.path))
    try:
        _run_mount_command("-o", "remount,ro,bind", str(project.path))
        yield project
    finally:
        subprocess.run(["umount", "-l", str(project.path)], check=True)
