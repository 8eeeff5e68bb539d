"""Measure the responsiveness of the real window: event loop, many cases, every tool.

``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/window.py [--data FOLDER] [--quick]``

A timer in the event loop ticks every 2 ms; the gaps between its ticks are the times for which the
window is blocked. They are measured while the window is idle and while a user scrolls, each without
the engine, during a training and during a prediction in the engine's own process. ``FOLDER`` holds
``images`` and ``labels`` of left atria; without it scans of that size are synthesized. A scan of
512 x 512 x 300 voxels is always synthesized. Times include software rendering, as under Xvfb.

Processor milliseconds count the work of all threads of the window: they are comparable on a machine
that runs other programs, times are not. The first repetition of an interaction includes the
creation of layers and usually is the worst one.

Prints tables and, as the last line, one JSON object with all figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from _event_loop_latency import LatencyMonitor, is_idle, settle, summarize_gaps, wait
from qtpy.QtWidgets import QApplication
from window_interactions import measure_interactions
from window_projects import make_many, make_typical

from napari_dycon.engine.config import make_config
from napari_dycon.project.models import Status
from napari_dycon.project.store import Project
from napari_dycon.session import Session
from napari_dycon.widgets.app import make_window
from napari_dycon.widgets.layers.napari_internals import get_qt_viewer

VERSIONS = ("napari-dycon", "napari", "PyQt5", "numpy", "torch", "vispy")
TINY: dict[str, Any] = {
    "batch.patch_size": [16, 16, 16],
    "network.filters": [4, 8, 8],
    "batch.labeled_size": 1,
    "batch.unlabeled_size": 1,
}
Values = dict[str, Any]


def main() -> None:
    """Print the tables and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="duration of each measurement of the gaps"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a short check, not a measurement")
    arguments = parser.parse_args()
    large = (300, 512, 512)
    if arguments.quick:
        arguments.cases, arguments.seconds, arguments.repeats = 200, 2.0, 1
        large = (20, 128, 128)
    folder = Path(tempfile.mkdtemp(prefix="dycon-window-"))
    os.environ["NAPARI_DYCON_STATE"] = str(folder / "state")
    results: Values = {"machine": describe_machine(), "load_before": round(os.getloadavg()[0], 2)}
    try:
        many = make_many(folder, arguments.cases)
        typical = make_typical(folder, arguments.data, large)
        results["no_window"] = measure_without_window(many)
        print_values("Without a window", results["no_window"])
        viewer, panel = make_window()
        viewer.window._qt_window.resize(1366, 768)
        settle(1.0)
        results["many_cases"] = measure_many(panel, many)
        print_values(f"A project of {arguments.cases} cases in the window", results["many_cases"])
        results["show_case"] = measure_showing(panel, typical, arguments.repeats)
        print_rows("Showing a case", results["show_case"])
        panel.canvas_area.views.show_side_views(True)
        for kind in ("atrium", "large"):
            name = f"interactions_{kind}"
            results[name] = measure_interactions(panel, arguments.repeats, kind)
            print_rows(f"Longest blocking by an interaction, three views, {kind}", results[name])
        settings = dict(TINY) if arguments.quick else {}
        results["gaps"] = measure_gaps(panel, arguments.seconds, settings)
        print_rows("Gaps of the event loop", results["gaps"])
        panel.release()
        wait(lambda: panel.task_runner.is_idle)  # no event loop of napari waits for the workers
        viewer.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(results))


# ---- A project of many cases -------------------------------------------------------------------


def measure_without_window(path: Path) -> Values:
    """Measure operations of a script on a large project, in milliseconds."""
    found: Values = {}
    found["open_ms"], project = time_call(lambda: Project.open(path))
    session = Session()
    found["session_open_ms"], _ = time_call(lambda: session.open_project(path))
    found["list_unlabeled_ms"], _ = time_call(project.unlabeled_cases)
    case = project.cases[1].id
    found["set_status_ms"], _ = time_call(lambda: session.set_case_status(case, Status.IN_PROGRESS))
    found["suggest_next_ms"], _ = time_call(session.suggest_next)
    session.set_case_status(case, Status.UNLABELED)
    session.close_project()
    return found


def measure_many(panel: Any, path: Path) -> Values:
    """Measure a large project in the window, in milliseconds.

    ``all_known_ms`` includes the comparison of every label with its prediction in the background.
    """
    session, rows, monitor = panel.session, panel.data.case_list, LatencyMonitor()
    count = len(Project.open(path).cases)
    found: Values = {}
    start, worked = time.perf_counter(), time.process_time()
    session.open_project(path)
    wait(lambda: rows.topLevelItemCount() == count)
    QApplication.processEvents()
    found["list_filled_ms"] = ms_since(start)
    found["list_filled_processor_ms"] = round(1000 * (time.process_time() - worked), 1)
    wait(lambda: is_idle(panel) and rows.summaries.get("case-00001").suggestion is not None, 600)
    found["all_known_ms"] = ms_since(start)
    found["all_known_processor_ms"] = round(1000 * (time.process_time() - worked), 1)
    found["longest_gap_ms"] = round(monitor.longest_ms(), 1)

    def measure_call(name: str, call: Callable[[], object]) -> None:
        settle(0.3)
        monitor.reset()
        started = time.perf_counter()
        call()
        QApplication.processEvents()
        found[f"{name}_ms"] = ms_since(started)
        wait(lambda: is_idle(panel), 600)
        settle(0.3)
        found[f"{name}_longest_gap_ms"] = round(monitor.longest_ms(), 1)

    measure_call("filter", lambda: panel.data.filter_box.setCurrentText("To do"))
    measure_call("filter_off", lambda: panel.data.filter_box.setCurrentIndex(0))
    measure_call("sort", lambda: rows.sortByColumn(2, rows.header().sortIndicatorOrder()))
    rows.sortByColumn(0, rows.header().sortIndicatorOrder())
    measure_call("scroll_to_end", rows.scrollToBottom)
    session.show_case("case-00001")
    wait(lambda: session.case is not None and is_idle(panel), 600)
    settle(2.0)  # the first layers of a window
    measure_call("set_status", lambda: session.set_case_status("case-00001", Status.IN_PROGRESS))
    measure_call("back", lambda: session.set_case_status("case-00001", Status.UNLABELED))
    session.close_project()
    settle(0.5)
    return found


# ---- Showing a case ----------------------------------------------------------------------------


def measure_showing(panel: Any, path: Path, repeats: int) -> list[Values]:
    """Measure the time from the click on a case until its scan and until all layers are drawn."""
    open_typical(panel, path)
    monitor = LatencyMonitor()
    found = []
    for kind in ("atrium", "large"):
        pair = [f"{kind}-0", f"{kind}-1"]
        shape = "x".join(map(str, panel.session.require_project().read_grid(pair[0]).shape[::-1]))
        # The scans are in the page cache; the first case of a window also creates its layers.
        for name, cases in (
            ("first", pair),
            ("again", [pair[index % 2] for index in range(2 * repeats)]),
        ):
            rows = [_measure_showing_case(panel, monitor, case) for case in cases]
            found.append(
                {
                    "scan": f"{kind} {shape}",
                    "shown": name,
                    "drawn_ms": round(float(np.median([row[0] for row in rows])), 1),
                    "drawn_worst_ms": round(max(row[0] for row in rows), 1),
                    "drawn_processor_ms": round(float(np.median([row[1] for row in rows])), 1),
                    "complete_ms": round(float(np.median([row[2] for row in rows])), 1),
                    "longest_gap_ms": round(max(row[3] for row in rows), 1),
                }
            )
    return found


def _measure_showing_case(
    panel: Any, monitor: LatencyMonitor, case: str
) -> tuple[float, float, float, float]:
    """Show a case after a second, in which it may have been read ahead.

    Returns
    -------
    drawn_ms, processor_ms, complete_ms, longest_gap_ms
        Time and processor time until the scan is drawn, time until all layers are complete, and the
        longest gap of the event loop
    """
    session = panel.session
    settle(1.0)
    wait(lambda: is_idle(panel))
    monitor.reset()
    start, worked = time.perf_counter(), time.process_time()
    session.show_case(case)
    wait(lambda: session.case is not None and session.case.id == case)
    get_qt_viewer(panel.viewer).canvas.native.repaint()  # draw now
    drawn = ms_since(start)
    processor = round(1000 * (time.process_time() - worked), 1)
    wait(lambda: not session.case.is_prediction_pending)
    wait(lambda: not panel.layers._deferred_steps._steps)
    complete = ms_since(start)
    return drawn, processor, complete, monitor.longest_ms()


def open_typical(panel: Any, path: Path) -> None:
    """Open the project of typical scans."""
    session = panel.session
    session.open_project(path)
    wait(lambda: session.project is not None and session.project.path == path)
    wait(lambda: is_idle(panel))


# ---- While the engine runs ---------------------------------------------------------------------


def measure_gaps(panel: Any, seconds: float, settings: Values) -> list[Values]:
    """Measure the event loop without the engine, during a training, and during a prediction."""
    session = panel.session
    project = session.require_project()
    found = _measure_gaps(panel, "nothing", seconds)

    steps: list[Values] = []
    session.event.connect(lambda event: steps.append(event) if event.event == "step" else None)
    config = make_config("dycon", device="cpu", time_limit=3600.0, steps=10_000_000, **settings)
    session.start_training(config)
    wait(lambda: bool(steps), 600)
    found += _measure_gaps(panel, "training", seconds)
    session.stop()
    wait(lambda: session.status.phase == "idle", 600)

    session.predict([case.id for case in project.cases] * 3)
    settle(min(seconds, 5.0))  # start of the engine process
    found += _measure_gaps(panel, "prediction", seconds, lambda: session.review.is_predicting)
    return found


def _measure_gaps(
    panel: Any, engine_task: str, seconds: float, is_running: Callable[[], bool] = lambda: True
) -> list[Values]:
    """Measure gaps of the idle window, and of one that is scrolled by ten slices a second."""
    monitor, index, found = LatencyMonitor(), 0, []
    for user in ("idle", "scrolling"):
        settle(0.5)
        monitor.reset()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end and is_running():
            if user == "scrolling":
                index += 1
                panel.layers.go_to_slice(30 + index % 20, 0)
            settle(0.1)
        row = {"engine": engine_task, "user": user, **summarize_gaps(monitor.gaps_ms())}
        found.append(row | {"engine_running_at_end": is_running()})
    return found


# ---- Output ------------------------------------------------------------------------------------


def describe_machine() -> Values:
    """Return the processor, versions, commit and command."""
    model = platform.processor()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if "model name" in line), model)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    versions = {}
    for name in VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": commit,
        "command": " ".join(sys.argv),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
    }


def time_call(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the milliseconds of a call, and its result."""
    start = time.perf_counter()
    result = call()
    return ms_since(start), result


def ms_since(start: float) -> float:
    """Return the milliseconds since a time of ``perf_counter``."""
    return round(1000 * (time.perf_counter() - start), 1)


def print_values(title: str, values: Values) -> None:
    """Print one value in each row."""
    print_rows(title, [{"measurement": name, "value": value} for name, value in values.items()])


def print_rows(title: str, rows: Sequence[Values]) -> None:
    """Print a table."""
    print(f"\n{title}\n")
    print(f"| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(str(value) for value in row.values())} |", flush=True)


if __name__ == "__main__":
    main()
