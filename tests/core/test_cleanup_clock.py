"""The age of files is measured with the clock of the disk, not of this machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from napari_dycon.core import cleanup, heartbeat


def test_a_disk_with_a_slow_clock_keeps_recent_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = tmp_path / ".0123abcd.tmp.label.nii.gz"
    half.write_bytes(b"half")
    now = time.time()
    monkeypatch.setattr(heartbeat.time, "time", lambda: now + 2 * cleanup.STALE_AFTER_S)  # type: ignore[attr-defined]
    assert cleanup.remove_stale_temporaries(tmp_path) == []
    os.utime(half, (now - 2 * cleanup.STALE_AFTER_S,) * 2)
    assert cleanup.remove_stale_temporaries(tmp_path) == [half]
    assert not list(tmp_path.iterdir())
