"""Files that are kept fresh while their writer lives, for those on other machines to see.

Processes of this machine are known by their numbers (``ProcessIdentity``); on a share the only sign
of another machine's is a file whose date goes on. Dates are compared by the clock of the disk that
both write to: the clocks of two machines differ.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from napari_dycon.project.atomic import disk_time

FRESHEN = 20.0  # seconds between signs of life
STALE = 90.0  # seconds without one, after which a writer counts as gone


def is_fresh(file: Path, now: float | None = None) -> bool:
    """Whether a file's writer gave a sign of life lately; ``now`` is the time by its disk."""
    try:
        return (disk_time(file.parent) if now is None else now) - file.stat().st_mtime < STALE
    except OSError:
        return False


@contextlib.contextmanager
def kept_fresh(file: Path) -> Iterator[None]:
    """Give signs of life by a file that is there, from a thread of its own."""
    over = threading.Event()

    def freshen() -> None:
        while not over.wait(FRESHEN):
            with contextlib.suppress(OSError):  # a drive that is away for a while
                os.utime(file)

    threading.Thread(target=freshen, name="signs of life", daemon=True).start()
    try:
        yield
    finally:
        over.set()
