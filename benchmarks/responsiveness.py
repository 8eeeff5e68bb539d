"""How long the window stands still: every interaction on a left atrium scan, in the real window.

``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/responsiveness.py --data
shared/data/left-atrium``

A timer of the window's event loop ticks every 2 ms; the longest gap between two ticks while an
interaction and everything that follows from it runs is how long the window stood still. Each is
done several times and the median of the longest gaps counts. Drawing by software, as under Xvfb, is
part of it; ``idle`` and ``scroll`` tell how much that takes by itself.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
from event_loop import settle, wait
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication
from scipy import ndimage

from napari_dycon.project import formats
from napari_dycon.project.importers import project_from_folder

TICK_MS = 2
REPEATS = 5


class Heartbeat:
    """Longest gap between ticks of the event loop."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(TICK_MS)

    def reset(self) -> None:
        """Start a new measurement."""
        self._last = time.perf_counter()
        self.longest = 0.0

    def _tick(self) -> None:
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last)
        self._last = now


def main() -> None:
    """Print a table of milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        run(make_project(arguments.data, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_project(data: Path, folder: Path) -> Path:
    """Project of two scans; the first has strokes and a prediction with a wide uncertain shell."""
    (folder / "images").mkdir()
    files = sorted((data / "images").glob("*.nii.gz"))[-2:]
    for file in files:
        shutil.copyfile(file, folder / "images" / file.name)
    project = project_from_folder(folder / "project", folder / "images", classes=["atrium"])
    run = project.new_run("dycon", {})
    for case, file in zip(project.cases, files, strict=True):
        truth = (formats.read_label(data / "labels" / file.name).array > 0).astype(np.uint8)
        edge = ndimage.gaussian_filter(truth.astype(np.float32), 3)
        unsure = (4 * edge * (1 - edge)).astype(np.float32)
        project.write_prediction(run.id, case.id, truth, unsure, unsure / 2)
        label = np.full(truth.shape, 255, np.uint8)
        label[::12] = truth[::12]
        project.save_label(case.id, label)
    return folder / "project"


def run(path: Path) -> None:
    """Measure every interaction."""
    viewer = napari.Viewer()
    viewer.window._qt_window.resize(1366, 768)
    _, panel = viewer.window.add_plugin_dock_widget("napari-dycon", "DyCON")
    session, layers = panel.session, panel.layers
    session.open_project(path)
    wait(lambda: session.project is not None and panel.data.list.topLevelItemCount() == 2)
    ids = [case.id for case in session.project.cases]
    session.show_case(ids[0])
    wait(lambda: session.view is not None and panel.strip.profile is not None)
    settle(2.0)
    beat = Heartbeat()

    def settled() -> bool:
        return not session.drawing.busy and panel.background.idle

    def paint() -> None:
        label = layers.layer("label")
        z, y, x = (n // 2 for n in session.view.label.shape)
        with label.block_history():
            for shift in range(0, 40, 2):
                label.paint((z, y, x + shift), 1)
                QApplication.processEvents()

    def undo() -> None:
        layers.layer("label").undo()

    def accept_grown() -> None:
        session.drawing.accept_proposal()

    def switch() -> None:
        session.show_case(ids[1] if session.view.id == ids[0] else ids[0])

    index = iter(range(10_000))
    steps: list[tuple[str, Callable[[], Any], Callable[[], Any] | None]] = [
        ("idle", lambda: None, None),
        ("scroll by a slice", lambda: layers.go_to_slice(30 + next(index) % 20, 0), None),
        ("a stroke of 20 positions", paint, undo),
        ("save what was painted", lambda: (paint(), session.save_label()), undo),
        ("fill between slices", lambda: session.drawing.fill_between([1], 0), undo),
        (
            "the same, following edges",
            lambda: session.drawing.fill_between([1], 0, follow_edges=True),
            undo,
        ),
        ("grow from strokes, to the proposal", session.drawing.grow, None),
        ("accept what was grown", accept_grown, undo),
        ("smooth", lambda: session.drawing.smooth(1, 1.0), undo),
        ("keep the largest piece", lambda: session.drawing.keep_largest(1), undo),
        ("next uncertain place", panel.review.next_place, None),
        ("accept a slice", panel.review.accept_this_slice, undo),
        ("accept the whole prediction", session.accept_prediction, undo),
        ("show the difference", lambda: panel.review.toggles["difference"].toggle(), None),
        ("threshold of the heat map", lambda: layers.overlays.set_threshold(0.5), None),
        ("show another case", switch, None),
    ]
    print("| interaction | longest standstill, ms (median of 5) | worst |")
    print("|---|---|---|")
    for name, work, after in steps:
        gaps = []
        for _ in range(REPEATS):
            if name == "accept what was grown":
                session.drawing.grow()
                wait(lambda: session.drawing.has_proposal)
            settle(0.3)
            beat.reset()
            work()
            wait(settled)
            settle(0.3)
            gaps.append(1000 * beat.longest)
            if name.startswith("grow"):
                session.drawing.discard_proposal()
            if after is not None:
                after()
            wait(settled)
        print(f"| {name} | {np.median(gaps):.0f} | {max(gaps):.0f} |", flush=True)
    panel.release()
    viewer.close()


if __name__ == "__main__":
    main()
