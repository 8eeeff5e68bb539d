"""Time from *Predict this case* to the first answer, and to the complete prediction.

``python benchmarks/first_answer.py PROJECT --case CASE [--run RUN]``

Predicts a case of a project as the window does, in a process of its own, twice: without templates
(as after a training) and with them. Prints a line of JSON: seconds until the first answer and until
the complete prediction, the processor seconds of the process, and how far the remaining time that
was shown was from the true one, from a third of the way on. Earlier templates of the run are
removed. ``benchmarks/results/first-answer.json`` holds results on a left atrium.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from napari_dycon.application.engine_process import run_prediction
from napari_dycon.project.runs.events import FailedEvent, IdleEvent, PredictionProgressEvent
from napari_dycon.project.store import Project


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--case", required=True)
    parser.add_argument("--run")
    arguments = parser.parse_args()
    project = Project.open(arguments.project)
    run = project.runs.get(arguments.run)
    for folder in run.state_folder.glob("templates-*"):
        shutil.rmtree(folder)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent,
    ).stdout.strip()  # fmt: skip
    result = {
        "benchmark": "first_answer",
        "commit": commit,
        "machine": f"{os.cpu_count()} cores {platform.machine()}, {platform.system()}",
        "torch": version("torch"),
        "shape": list(project.read_grid(arguments.case).shape),
        "after_training": measure(project.path, run.id, arguments.case),
        "with_templates": measure(project.path, run.id, arguments.case),
    }
    print(json.dumps(result, indent=1))


def measure(project: Path, run_id: str, case: str) -> dict[str, Any]:
    """Predict a case once; returns its times in seconds."""
    begin, load = time.monotonic(), os.getloadavg()[0]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found: dict[str, Any] = {"load_before": round(load, 1)}
    shown: list[tuple[float, float]] = []  # time, remaining time
    for event in run_prediction(project, run_id, [case], preliminary=1):
        if isinstance(event, IdleEvent):
            continue
        seconds = time.monotonic() - begin
        if isinstance(event, FailedEvent):
            sys.exit(event.message)
        if isinstance(event, PredictionProgressEvent):
            if event.phase != "loading":
                found.setdefault("network_loaded_s", round(seconds, 1))
            if event.remaining_s is not None:
                shown.append((seconds, event.remaining_s))
        elif event.event == "preliminary":
            found["first_answer_s"] = round(seconds, 1)
        elif event.event == "predicted":
            found["complete_s"] = round(seconds, 1)
    total = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found["end_s"] = round(total, 1)
    found["processor_s"] = round(
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1
    )
    errors = [
        abs(remaining - (total - seconds)) / (total - seconds)
        for seconds, remaining in shown
        if total / 3 < seconds < 0.95 * total
    ]
    found["median_error_of_remaining"] = round(float(np.median(errors)), 3) if errors else None
    return found


if __name__ == "__main__":
    main()
