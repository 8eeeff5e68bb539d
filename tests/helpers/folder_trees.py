"""Contents of folders, to check that nothing changes."""

from __future__ import annotations

from pathlib import Path


def read_tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, but for the lock."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }
