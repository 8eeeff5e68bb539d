"""A process that ends while it writes leaves whole files and no temporary ones."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from napari_dycon.core import atomic

SCRIPT = """
import os, sys, threading, time
from pathlib import Path
from napari_dycon.core.atomic import abandon_writes, atomic_write, atomic_write_many

folder, seconds = Path(sys.argv[1]), float(sys.argv[2])

def write() -> None:
    with atomic_write_many([folder / "map", folder / "mask"]) as files:
        for file in files:
            file.write_text("new")
            started.set()
            time.sleep(seconds)

def write_one() -> None:
    with atomic_write(folder / "one") as file:
        file.write_text("new")
        time.sleep(2 * seconds)

started = threading.Event()
for target in (write, write_one):
    threading.Thread(target=target, daemon=True).start()
started.wait()
abandon_writes(timeout_s=0.5)
os._exit(7)
"""


@pytest.mark.parametrize(("seconds", "content"), [(0.05, "new"), (30.0, "old")])
def test_files_are_written_or_abandoned(tmp_path: Path, seconds: float, content: str) -> None:
    names = ("map", "mask", "one")
    for name in names:
        (tmp_path / name).write_text("old")
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path), str(seconds)]
    assert subprocess.run(command, check=False, timeout=60).returncode == 7
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    assert [(tmp_path / name).read_text() for name in names] == [content] * 3


def test_written_files_are_not_waited_for(tmp_path: Path) -> None:
    def find_unfinished() -> list[Path]:
        # Sessions of windows that other tests share go on writing their own files.
        return [path for path in list(atomic._unfinished) if path.is_relative_to(tmp_path)]

    with atomic.atomic_write(tmp_path / "a") as file:
        file.write_text("text")
        assert find_unfinished() == [file]
    with pytest.raises(ValueError, match="no"), atomic.atomic_write(tmp_path / "b"):
        raise ValueError("no")
    assert not find_unfinished()
    thread = threading.Thread(target=atomic.write_text, args=(tmp_path / "c", "text"))
    thread.start()
    thread.join()
    assert not find_unfinished()
