"""A small file system that tests can fill."""

from __future__ import annotations

import os
from pathlib import Path


class Disk:
    """A small file system of its own that can be filled and emptied."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Fill it up to ``leave`` bytes."""
        state = os.statvfs(self.path)
        with self._ballast.open("ab") as file:
            file.write(bytes(max(state.f_bavail * state.f_frsize - leave, 0)))

    def empty(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)
