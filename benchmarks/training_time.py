"""Measure whether runs keep the chosen time, and what previews and validation cost.

``python benchmarks/training_time.py --data shared/data/left-atrium --work DIR [--minutes 2 4]``

For each time limit, two runs with one thread each train at the same time, so that both find the
same machine: one with previews and a validation case, and one without both. Of 12 scans, three are
labeled and one is the validation case, which the second run does not have. Prints for each run the
chosen and the real seconds, the share of previews and validation (with that at the end), the
number of steps, and the median relative error of the remaining time in the events from a third of
the run on. ``benchmarks/results/training-time.json`` holds the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project

N_SCANS, N_LABELED = 12, 3
CHECKED_FRACTION = 1 / 3  # of a run, after which its remaining time is compared
MIN_REMAINING_S = 2.0  # below which an error of the remaining time is not of interest
Events = list[dict[str, Any]]


def make_project(data: Path, folder: Path, *, has_validation: bool) -> Project:
    """Create a project of the first scans; the fourth is the validation case, if there is one."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(folder.with_suffix(".scans"), ignore_errors=True)
    scans = folder.with_suffix(".scans")
    for name in ("images", "labels"):
        (scans / name).mkdir(parents=True)
    files = sorted((data / "images").glob("*.nii.gz"))[:N_SCANS]
    validation = files[N_LABELED]
    for path in files:
        if path != validation or has_validation:
            (scans / "images" / path.name).symlink_to(path.resolve())
    for path in files[: N_LABELED + has_validation]:
        label = data / "labels" / path.name
        (scans / "labels" / path.name).symlink_to(label.resolve())
    project = create_project(folder, scans / "images", labels=scans / "labels")
    if has_validation:
        project.set_split(validation.name.removesuffix(".nii.gz"), "validation")
    return project


def train(
    project: Project, arguments: list[str], on_event: Callable[[Run, dict[str, Any]], None]
) -> tuple[float, Events]:
    """Train in a process with one thread; return its seconds and the events."""
    command = [sys.executable, "-m", "napari_dycon", "train", str(project.path), "--json"]
    environment = os.environ | {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    begin, events = time.monotonic(), []
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            events.append(event)
            on_event(project.runs.get(events[0]["run"]), event)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.monotonic() - begin, events


def summarize(variant: str, limit_s: float, seconds: float, events: Events) -> dict[str, Any]:
    """Return the figures of a run."""
    phases = [event for event in events if event["event"] == "phase"]
    begin, end = events[0]["time"], events[-1]["time"]
    spent = {"preview": 0.0, "validation": 0.0}
    for event, following in zip(phases, [*phases[1:], events[-1]], strict=True):
        if event["phase"] in spent:
            spent[event["phase"]] += following["time"] - event["time"]
    errors = []
    for event in events:
        true_s, found_s = end - event["time"], event.get("remaining_s")
        is_checked = event["time"] - begin >= CHECKED_FRACTION * (end - begin)
        if found_s is not None and is_checked and true_s >= MIN_REMAINING_S:
            errors.append(abs(found_s - true_s) / true_s)
    return {
        "run": variant,
        "chosen_s": limit_s,
        "real_s": round(seconds, 1),
        "steps": events[-1]["step"],
        "previews": sum(event["event"] == "preview" for event in events),
        "preview_and_validation": round(sum(spent.values()) / seconds, 4),
        "median_error_of_remaining_time": round(statistics.median(errors), 4),
        "validation_dice": events[-1]["dice"],
    }


def measure_pair(data: Path, work: Path, limit_s: float, settings: list[str]) -> Events:
    """Train with and without previews and validation at the same time."""
    rows: dict[str, dict[str, Any]] = {}

    def request_preview(run: Run, event: dict[str, Any]) -> None:
        if event["event"] == "started":
            run.write_control(preview=project.unlabeled_cases()[0].id)

    def measure(variant: str, project: Project, extra: list[str]) -> None:
        arguments = ["--time-limit", f"{limit_s:g}s", *settings, *extra]
        seconds, events = train(project, arguments, request_preview)
        rows[variant] = summarize(variant, limit_s, seconds, events)

    project = make_project(data, work / "with", has_validation=True)
    bare = make_project(data, work / "without", has_validation=False)
    threads = [
        threading.Thread(target=measure, args=("previews and validation", project, [])),
        threading.Thread(
            target=measure,
            args=("neither", bare, ["--set", "preview=false", "--set", "validation=false"]),
        ),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    full, without = rows["previews and validation"], rows["neither"]
    return [full | {"share_of_steps": round(full["steps"] / without["steps"], 4)}, without]


def main() -> None:
    """Print a row for each run, and all figures as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the projects")
    parser.add_argument("--minutes", type=float, nargs="*", default=[2.0, 4.0])
    parser.add_argument("--set", action="append", default=[], help="setting of all runs")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    settings = [word for one in options.set for word in ("--set", one)]
    rows = []
    for minutes in options.minutes:
        for row in measure_pair(options.data, options.work, 60.0 * minutes, settings):
            rows.append(row)
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    result = {
        "command": " ".join(sys.argv).replace(str(options.work), "DIR"),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            capture_output=True, text=True, cwd=Path(__file__).parent,
        ).stdout.strip(),
        "machine": f"{os.cpu_count()} cores {platform.machine()}, {platform.system()}",
        "versions": {name: version(name) for name in ("napari-dycon", "torch", "monai")},
        "load": os.getloadavg()[2],
        "rows": rows,
    }  # fmt: skip
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
