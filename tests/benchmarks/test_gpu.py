"""The GPU benchmark works, on a CPU and with tiny settings: all sections, one row per task."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTIONS = (
    "environment", "correctness", "training", "memory", "resume", "prediction", "learning",
)  # fmt: skip


@pytest.mark.slow
def test_all_sections_run_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--quick"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed == json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert printed["finished"] is True
    assert done.returncode == 0, [row for row in printed["rows"] if row["ok"] is False]
    assert {row["section"] for row in printed["rows"]} == set(SECTIONS)
    assert all({"task", "ok", "measures", "note"} <= set(row) for row in printed["rows"])
    assert not any("error" in row for row in printed["rows"])
    absent = {row["task"] for row in printed["rows"] if row["note"] == "not on this device"}
    assert absent == {
        "GPU",
        "training, half the memory",
        "prediction, a third of the memory",
    }
    for section in SECTIONS:
        lines = (tmp_path / f"{section}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [row for row in printed["rows"] if row["section"] == section]
        assert [json.loads(line) for line in lines] == rows


def test_a_task_that_fails_is_a_row_and_the_others_still_run(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--quick"]
    command += ["--data", str(tmp_path / "data"), "--only", "environment", "resume"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert done.returncode == 1
    assert [(row["task"], row["ok"]) for row in rows] == [
        ("machine", None),
        ("GPU", None),
        ("scans", False),
        ("dycon float32", False),
        ("loss scale", True),
    ]
    failed = [row for row in rows if row["ok"] is False]
    assert all("0 scan(s)" in row["error"] and "Traceback" in row["traceback"] for row in failed)
