"""How the real window feels: its event loop, a project of 2,000 cases, showing a case, every tool.

``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/window.py [--data FOLDER] [--quick]``

A timer of the window's event loop ticks every 2 ms, and the gaps between its ticks are how long the
window stood still. They are taken while it is left alone and while somebody scrolls, each with
nothing else at work, with a training and with a prediction in the engine's own process. ``FOLDER``
holds ``images`` and ``labels`` of a left atrium; without it a scan of that size is made. A scan of
512 x 512 x 100 voxels is always made. Drawing by software, as under Xvfb, is part of all of it.

Processor milliseconds count what all threads of the window worked: on a machine that has other
things to do they are comparable, and times are not.

Printed are tables for people and, as the last line, one JSON object with everything in it. The
first time of an interaction counts as its worst one: layers are made then.
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
from _event_loop_latency import Heartbeat, settle, summarize_gaps, wait
from qtpy.QtWidgets import QApplication
from window_projects import make_many, make_typical

from napari_dycon.engine.config import make_config
from napari_dycon.project.store import Project
from napari_dycon.session import Session
from napari_dycon.widgets.app import make_window

VERSIONS = ("napari-dycon", "napari", "PyQt5", "numpy", "torch", "vispy")
TINY: dict[str, Any] = {
    "batch.patch_size": [16, 16, 16],
    "network.filters": [4, 8, 8],
    "batch.labeled_size": 1,
    "batch.unlabeled_size": 1,
}
Values = dict[str, Any]


def main() -> None:
    """Print the tables and the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each look at the gaps")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a short check, not a measurement")
    arguments = parser.parse_args()
    large = (100, 512, 512)
    if arguments.quick:
        arguments.cases, arguments.seconds, arguments.repeats = 200, 2.0, 1
        large = (20, 128, 128)
    folder = Path(tempfile.mkdtemp(prefix="dycon-window-"))
    os.environ["NAPARI_DYCON_STATE"] = str(folder / "state")
    results: Values = {"machine": machine(), "load_before": round(os.getloadavg()[0], 2)}
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
        results["interactions"] = measure_interactions(panel, arguments.repeats)
        print_rows("Longest standstill of an interaction", results["interactions"])
        settings = dict(TINY) if arguments.quick else {}
        results["gaps"] = measure_gaps(panel, arguments.seconds, settings)
        print_rows("Gaps of the event loop", results["gaps"])
        panel.release()
        viewer.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(results))


# ---- A project of many cases -------------------------------------------------------------------


def measure_without_window(path: Path) -> Values:
    """Measure what a script does with a large project; milliseconds."""
    found: Values = {}
    found["open_ms"], project = timed(lambda: Project.open(path))
    session = Session()
    found["session_open_ms"], _ = timed(lambda: session.open_project(path))
    found["list_unlabeled_ms"], _ = timed(project.unlabeled_cases)
    case = project.cases[1].id
    found["set_status_ms"], _ = timed(lambda: session.set_case_status(case, "in_progress"))
    found["suggest_next_ms"], _ = timed(session.suggest_next)
    session.set_case_status(case, "unlabeled")
    session.close_project()
    return found


def measure_many(panel: Any, path: Path) -> Values:
    """Measure a large project in the window; milliseconds.

    ``all_known_ms`` includes comparing every label with its prediction, in the background.
    """
    session, rows, beat = panel.session, panel.data.case_list, Heartbeat()
    count = len(Project.open(path).cases)
    found: Values = {}
    begun, worked = time.perf_counter(), time.process_time()
    session.open_project(path)
    wait(lambda: rows.topLevelItemCount() == count)
    QApplication.processEvents()
    found["list_filled_ms"] = ms_since(begun)
    found["list_filled_processor_ms"] = round(1000 * (time.process_time() - worked), 1)
    wait(lambda: is_calm(panel) and rows.summaries.get("case-00001").suggestion is not None, 600)
    found["all_known_ms"] = ms_since(begun)
    found["all_known_processor_ms"] = round(1000 * (time.process_time() - worked), 1)
    found["longest_gap_ms"] = round(beat.longest_ms(), 1)

    def measured(name: str, work: Callable[[], object]) -> None:
        settle(0.3)
        beat.reset()
        started = time.perf_counter()
        work()
        QApplication.processEvents()
        found[f"{name}_ms"] = ms_since(started)
        wait(lambda: is_calm(panel), 600)
        settle(0.3)
        found[f"{name}_longest_gap_ms"] = round(beat.longest_ms(), 1)

    measured("filter", lambda: panel.data.filter_box.setCurrentText("To label"))
    measured("filter_off", lambda: panel.data.filter_box.setCurrentIndex(0))
    measured("sort", lambda: rows.sortByColumn(2, rows.header().sortIndicatorOrder()))
    rows.sortByColumn(0, rows.header().sortIndicatorOrder())
    measured("scroll_to_end", rows.scrollToBottom)
    session.show_case("case-00001")
    wait(lambda: session.case is not None and is_calm(panel), 600)
    settle(2.0)  # the first layers of a window
    measured("set_status", lambda: session.set_case_status("case-00001", "in_progress"))
    measured("back", lambda: session.set_case_status("case-00001", "unlabeled"))
    session.close_project()
    settle(0.5)
    return found


def is_calm(panel: Any) -> bool:
    """Whether nothing is at work any longer."""
    return bool(panel.task_runner.is_idle and not panel.session.annotation.operation)


# ---- Showing a case ----------------------------------------------------------------------------


def measure_showing(panel: Any, path: Path, repeats: int) -> list[Values]:
    """Measure how long a case takes from the click until its scan is drawn, and all of it."""
    open_typical(panel, path)
    beat = Heartbeat()
    found = []
    for kind in ("atrium", "large"):
        pair = [f"{kind}-0", f"{kind}-1"]
        shape = "x".join(map(str, panel.session.require_project().read_grid(pair[0]).shape[::-1]))
        # The scans lie in the disk's cache; the very first of a window also makes its layers.
        for name, cases in (
            ("first", pair),
            ("again", [pair[turn % 2] for turn in range(2 * repeats)]),
        ):
            rows = [_show(panel, beat, case) for case in cases]
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


def _show(panel: Any, beat: Heartbeat, case: str) -> tuple[float, float, float, float]:
    """Show a case: milliseconds until its scan is drawn, of processor for that, until all is there.

    The last one is the longest gap. Before, the case shown was looked at for a second, in which the
    next may be read ahead.
    """
    session = panel.session
    settle(1.0)
    wait(lambda: is_calm(panel))
    beat.reset()
    begun, worked = time.perf_counter(), time.process_time()
    session.show_case(case)
    wait(lambda: session.case is not None and session.case.id == case)
    panel.viewer.window._qt_viewer.canvas.native.repaint()  # not whenever Qt finds the time
    drawn = ms_since(begun)
    processor = round(1000 * (time.process_time() - worked), 1)
    wait(lambda: not panel.layers._deferred_steps._steps)
    complete = ms_since(begun)
    return drawn, processor, complete, beat.longest_ms()


def open_typical(panel: Any, path: Path) -> None:
    """Open the project of typical scans."""
    session = panel.session
    session.open_project(path)
    wait(lambda: session.project is not None and session.project.path == path)
    wait(lambda: is_calm(panel))


# ---- Every tool --------------------------------------------------------------------------------


def measure_interactions(panel: Any, repeats: int) -> list[Values]:
    """Measure how long the window stands still at most while an interaction and its effects run."""
    session, layers, beat = panel.session, panel.layers, Heartbeat()
    session.show_case("atrium-0")
    wait(lambda: session.case is not None and session.case.id == "atrium-0")
    wait(lambda: panel.strip.profile is not None)
    settle(2.0)

    def paint() -> None:
        label = layers.find_layer("label")
        z, y, x = (n // 2 for n in session.require_case().label.shape)
        with label.block_history():
            for shift in range(0, 40, 2):
                label.paint((z, y, x + shift), 1)
                QApplication.processEvents()

    def undo() -> None:
        layers.find_layer("label").undo()

    def grown() -> None:
        session.annotation.grow()
        wait(lambda: session.annotation.has_proposal)

    def switch() -> None:
        session.show_case("atrium-1" if session.require_case().id == "atrium-0" else "atrium-0")

    def nothing() -> None:
        pass

    index = iter(range(10_000))
    drawing, review = session.annotation, panel.review
    # Name, what to do before, what is measured, what to do afterwards.
    steps: list[tuple[str, Callable[[], Any], Callable[[], Any], Callable[[], Any]]] = [
        ("idle", nothing, nothing, nothing),
        (
            "scroll by a slice",
            nothing,
            lambda: layers.go_to_slice(30 + next(index) % 20, 0),
            nothing,
        ),
        ("a stroke of 20 positions", nothing, paint, undo),
        ("save what was painted", nothing, lambda: (paint(), session.save_label()), undo),
        ("fill between slices", nothing, lambda: drawing.fill_between([1], 0), undo),
        (
            "the same, following edges",
            nothing,
            lambda: drawing.fill_between([1], 0, refine_to_edges=True),
            undo,
        ),
        ("grow from strokes, to the proposal", nothing, drawing.grow, drawing.discard_proposal),
        ("accept the proposal", grown, drawing.accept_proposal, undo),
        ("smooth", nothing, lambda: drawing.smooth(1, 1.0), undo),
        ("keep the largest piece", nothing, lambda: drawing.keep_largest_component(1), undo),
        ("next uncertain region", nothing, review.next_uncertain_region, nothing),
        ("accept a slice", nothing, review.accept_slice, undo),
        ("accept the whole prediction", nothing, session.accept_prediction, undo),
        ("show the difference", nothing, lambda: review.toggles["difference"].toggle(), nothing),
        (
            "threshold of the heat map",
            nothing,
            lambda: layers.overlays.set_threshold(0.5),
            nothing,
        ),
        ("show another case", nothing, switch, nothing),
    ]
    found = []
    for name, before, work, after in steps:
        gaps = []
        for _ in range(repeats):
            before()
            settle(0.3)
            beat.reset()
            work()
            wait(lambda: is_calm(panel))
            settle(0.3)
            gaps.append(beat.longest_ms())
            after()
            wait(lambda: is_calm(panel))
        row = {"interaction": name, "median_ms": round(float(np.median(gaps)), 1)}
        found.append(row | {"worst_ms": round(max(gaps), 1)})
    return found


# ---- While the engine works --------------------------------------------------------------------


def measure_gaps(panel: Any, seconds: float, settings: Values) -> list[Values]:
    """Measure the event loop alone, beside a training, and beside a prediction."""
    session = panel.session
    project = session.require_project()
    found = _gaps(panel, "nothing", seconds)

    steps: list[Values] = []
    session.event.connect(lambda event: steps.append(event) if event["event"] == "step" else None)
    config = make_config("dycon", device="cpu", time_limit=3600.0, steps=10_000_000, **settings)
    session.start_training(config)
    wait(lambda: bool(steps), 600)
    found += _gaps(panel, "training", seconds)
    session.stop()
    wait(lambda: session.status.phase == "idle", 600)

    session.predict([case.id for case in project.cases] * 3)
    settle(min(seconds, 5.0))  # its start
    found += _gaps(panel, "prediction", seconds, lambda: session.review.is_predicting)
    return found


def _gaps(
    panel: Any, work: str, seconds: float, going: Callable[[], bool] = lambda: True
) -> list[Values]:
    """Gaps of the window left alone, and of one in which somebody scrolls ten slices a second."""
    beat, index, found = Heartbeat(), 0, []
    for person in ("looks", "scrolls"):
        settle(0.5)
        beat.reset()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end and going():
            if person == "scrolls":
                index += 1
                panel.layers.go_to_slice(30 + index % 20, 0)
            settle(0.1)
        row = {"engine": work, "person": person, **summarize_gaps(beat.gaps_ms())}
        found.append(row | {"still_at_work_at_the_end": going()})
    return found


# ---- Told --------------------------------------------------------------------------------------


def machine() -> Values:
    """What the figures depend on."""
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


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds, and what the work returned."""
    begun = time.perf_counter()
    result = work()
    return ms_since(begun), result


def ms_since(begun: float) -> float:
    """Milliseconds since a time of ``perf_counter``."""
    return round(1000 * (time.perf_counter() - begun), 1)


def print_values(title: str, values: Values) -> None:
    """Print values one a row."""
    print_rows(title, [{"what": name, "value": value} for name, value in values.items()])


def print_rows(title: str, rows: Sequence[Values]) -> None:
    """Print a table."""
    print(f"\n{title}\n")
    print(f"| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(str(value) for value in row.values())} |", flush=True)


if __name__ == "__main__":
    main()
