"""Makes the pictures of ``tutorials/annotate-and-train.md`` by doing what it describes, in the
real window.

``xvfb-run -a -s "-screen 0 1600x1000x24" python docs/make_tutorial.py [--minutes 4]``

Scans are the built-in synthetic ones, so that the pictures may go anywhere. A person's strokes are
imitated along the true outlines. Pictures go to ``docs/pictures/``.
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
from qtpy.QtWidgets import QApplication
from scipy import ndimage
from skimage.measure import approximate_polygon, find_contours

from napari_dycon import io
from napari_dycon.demo.synthetic import CLASSES, write_cohort
from napari_dycon.engine.config import make_config
from napari_dycon.widgets.app import make_window
from napari_dycon.widgets.window.shortcuts import ShortcutsDialog

PICTURES = Path(__file__).with_name("pictures")
SIZE = (1366, 768)
CASES, READY = 8, 2  # scans, and how many of them have labels already
SLICES = 5


def main() -> None:
    """Make the cohort, then all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0, help="of training")
    minutes = parser.parse_args().minutes
    PICTURES.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp())
    try:
        write_cohort(folder / "cohort", cases=CASES)
        labels = folder / "labels"
        labels.mkdir()
        for file in sorted((folder / "cohort" / "truth").iterdir())[:READY]:
            shutil.copyfile(file, labels / file.name)
        walk(folder, minutes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def walk(folder: Path, minutes: float) -> None:
    """Do what the tutorial tells, and take a picture at every stop."""
    viewer, panel = make_window()
    viewer.window.resize(*SIZE)
    session, layers = panel.session, panel.layers
    session.create_project(
        folder / "project", folder / "cohort" / "images", folder / "labels", list(CLASSES)
    )
    wait(lambda: session.project is not None)
    case = session.project.unlabeled_cases()[0].id
    truth = io.read_label(folder / "cohort" / "truth" / f"{case}.nii.gz").array
    session.show_case(case)
    wait(lambda: session.case is not None and panel.strip.profile is not None)
    settle(2)
    take(viewer, "01-open")

    # A few slices by hand
    shown = np.flatnonzero((truth > 0).any(axis=(1, 2)))
    numbers = np.linspace(shown[0] + 1, shown[-1] - 1, SLICES).round().astype(int).tolist()
    label = layers.find_layer("label")
    for number in numbers:
        layers.go_to_slice(number, 0)
        outline(label, truth, number)
        panel.annotate.mark_slice_complete()
    for number in (shown[0] - 1, shown[-1] + 1):
        layers.go_to_slice(int(number), 0)
        panel.annotate.mark_slice_complete()
    layers.go_to_slice(numbers[2], 0)
    settle(2)
    take(viewer, "02-strokes")

    # The program fills the rest in
    panel.annotate.tools.all_checkbox.setChecked(True)
    panel.annotate.tools.fill_button.click()
    wait(lambda: not session.annotation.operation)
    layers.go_to_slice((numbers[1] + numbers[2]) // 2, 0)
    settle(2)
    take(viewer, "03-filled")
    panel.annotate.complete_case_button.click()

    # Growing in another case
    other = session.project.unlabeled_cases()[0].id
    other_truth = io.read_label(folder / "cohort" / "truth" / f"{other}.nii.gz").array
    session.show_case(other)
    wait(lambda: session.case.id == other)
    middle = int(np.argmax((other_truth == 1).sum(axis=(1, 2))))
    layers.go_to_slice(middle, 0)
    stroke(layers.find_layer("label"), other_truth, middle)
    panel.annotate.tools.grow_button.click()
    wait(lambda: session.annotation.has_proposal)
    settle(1)
    take(viewer, "04-grow")
    panel.annotate.tools.discard_button.click()

    # Growing that stops at a box
    panel.annotate.tools.roi_controls.draw_button.click()
    layers.roi.layer.add(rectangle(other_truth, middle))
    settle(0.5)
    layers.roi.finish_editing()
    panel.annotate.tools.grow_button.click()
    wait(lambda: session.annotation.has_proposal)
    settle(1)
    take(viewer, "04-box")
    panel.annotate.tools.discard_button.click()
    panel.annotate.tools.roi_controls.remove_button.click()

    # Training
    session.project.set_split(session.project.cases[1].id, "validation")
    panel.tabs.setCurrentIndex(1)
    config = make_config("dycon", time_limit=60 * minutes)
    session.start_training(config)
    wait(lambda: layers.find_layer("prediction") is not None, 60 * minutes + 120)
    wait(lambda: session.status.progress > 0.6, 60 * minutes + 120)
    take(viewer, "05-train")
    wait(lambda: session.status.phase == "idle", 60 * minutes + 300)
    session.predict([c.id for c in session.project.unlabeled_cases()])
    wait(lambda: not session.review.is_predicting, 600)
    settle(2)

    # Review
    panel.tabs.setCurrentIndex(2)
    session.show_case(session.suggest_next()[0])
    wait(lambda: session.case.prediction is not None)
    settle(1)
    panel.review.next_region_button.click()
    settle(2)
    take(viewer, "06-uncertain")
    panel.review.accept_button.click()
    truth = truth_of(folder, session.case.id)
    wrong = (truth != session.case.prediction) & (truth > 0)
    layers.go_to_slice(int(np.argmax(wrong.sum(axis=(1, 2)))), 0)
    viewer.reset_view()
    outline(layers.find_layer("label"), truth, layers.slice_index)
    panel.review.toggles["uncertainty"].setChecked(False)
    panel.review.toggles["difference"].setChecked(True)
    settle(2)
    take(viewer, "07-difference")
    panel.review.toggles["difference"].setChecked(False)
    panel.review.toggles["uncertainty"].setChecked(True)
    card = ShortcutsDialog(panel, panel.shortcuts)
    card.show()
    settle(1)
    card.grab().save(str(PICTURES / "08-keys.png"))
    card.close()
    panel.release()
    viewer.close()


def truth_of(folder: Path, case: str) -> Any:
    """True label of a synthetic scan."""
    return io.read_label(folder / "cohort" / "truth" / f"{case}.nii.gz").array


def outline(label: Any, truth: Any, number: int) -> None:
    """Outline every structure of a slice, as with the polygon tool, the larger one first."""
    for value in (1, 2):
        mask = np.pad(truth[number] == value if value > 1 else truth[number] > 0, 1)
        for contour in find_contours(mask.astype(float), 0.5):
            corners = np.clip(approximate_polygon(contour - 1, 0.7), 0, np.array(mask.shape) - 3)
            if len(corners) > 3:
                label.paint_polygon([np.array([number, *corner]) for corner in corners], value)


def rectangle(truth: Any, number: int) -> Any:
    """Corners of a box around the upper half of the organ in a slice, as dragged with the mouse."""
    rows, columns = np.nonzero(truth[number] > 0)
    top, bottom = rows.min() - 2, (rows.min() + rows.max()) // 2
    left, right = columns.min() - 2, columns.max() + 2
    return [[number, y, x] for y, x in ((top, left), (top, right), (bottom, right), (bottom, left))]


def stroke(label: Any, truth: Any, number: int) -> None:
    """Paint over most of the organ in a slice, and background around it."""
    label.brush_mm = 8.0
    organ = truth[number] > 0
    inner = ndimage.binary_erosion(organ, iterations=5)
    around = ndimage.binary_dilation(organ, iterations=7) & ~ndimage.binary_dilation(
        organ, iterations=6
    )
    for mask, value in ((inner, 1), (around, 0)):
        for y, x in np.argwhere(mask)[::5].tolist():
            label.paint((number, y, x), value)


def take(viewer: napari.Viewer, name: str) -> None:
    """Save the whole window."""
    for widget in QApplication.allWidgets():  # notes that came long ago would hide the scan
        if type(widget).__name__ == "NapariQtNotification":
            widget.close()
    QApplication.processEvents()
    viewer.screenshot(str(PICTURES / f"{name}.png"), canvas_only=False, flash=False)


def settle(seconds: float) -> None:
    """Let the window live for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Let the window live until something is the case."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("waited in vain")
        settle(0.05)


if __name__ == "__main__":
    main()
