"""Make the pictures of ``tutorials/annotate-and-train.md`` by following it in the real window.

``xvfb-run -a -s "-screen 0 1920x1080x24" python docs/make_tutorial.py [--minutes 4] [--out DIR]``

Scans are the built-in synthetic ones, so that the pictures are free to publish. The annotator is
simulated with strokes along the true outlines. Pictures are written to ``docs/pictures/``, or to
``DIR``.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtWidgets import QApplication
from scipy import ndimage
from skimage.measure import approximate_polygon, find_contours

from napari_dycon import io
from napari_dycon.demo.synthetic import CLASSES, write_cohort
from napari_dycon.engine.config import make_config
from napari_dycon.project.runs.events import Event
from napari_dycon.widgets.app import make_window
from napari_dycon.widgets.window.shortcuts import ShortcutsDialog

PICTURES = Path(__file__).with_name("pictures")
WINDOW_SIZE = (1366, 768)
LARGE_WINDOW_SIZE = (1600, 980)
CASES, LABELED_CASES = 8, 2
ANNOTATED_SLICES = 5


def main() -> None:
    """Write the synthetic scans, then make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0, help="duration of the training")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder of the pictures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp())
    try:
        write_cohort(folder / "cohort", cases=CASES)
        labels = folder / "labels"
        labels.mkdir()
        for file in sorted((folder / "cohort" / "truth").iterdir())[:LABELED_CASES]:
            shutil.copyfile(file, labels / file.name)
        Tutorial(folder, arguments.out).run(arguments.minutes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Tutorial:
    """The steps of the tutorial, each of which saves pictures of the window.

    Parameters
    ----------
    folder : holds ``cohort`` and ``labels``; the project is created in it
    pictures : folder of the pictures
    """

    def __init__(self, folder: Path, pictures: Path) -> None:
        self._folder, self._pictures = folder, pictures
        self._viewer, self._panel = make_window()
        self._viewer.window.resize(*WINDOW_SIZE)
        self._session, self._layers = self._panel.session, self._panel.layers

    def run(self, minutes: float) -> None:
        """Run all steps; training takes some minutes."""
        self._open_project()
        self._annotate_slices()
        self._interpolate()
        self._grow()
        self._train(minutes)
        self._review_uncertain_region()
        self._correct_prediction()
        self._show_shortcuts()
        self._panel.release()
        self._viewer.close()

    def _open_project(self) -> None:
        images = self._folder / "cohort" / "images"
        labels = self._folder / "labels"
        self._session.create_project(self._folder / "project", images, labels, list(CLASSES))
        wait(lambda: self._session.project is not None)
        self._show_case(self._session.require_project().unlabeled_cases()[0].id)
        wait(lambda: self._panel.strip.profile is not None)
        settle(2)
        self._save_picture("01-open")

    def _annotate_slices(self) -> None:
        """Outline the structures in some slices, and mark the slices beyond them as empty."""
        truth = self._read_truth()
        with_structure = np.flatnonzero((truth > 0).any(axis=(1, 2)))
        first, last = int(with_structure[0]), int(with_structure[-1])
        for number in self._list_annotated_slices():
            self._layers.go_to_slice(number, 0)
            outline(self._layers.find_layer("label"), truth, number)
            self._panel.annotate.mark_slice_complete()
        for number in (first - 1, last + 1):
            self._layers.go_to_slice(number, 0)
            self._panel.annotate.mark_slice_complete()
        self._layers.go_to_slice(self._list_annotated_slices()[2], 0)
        settle(2)
        self._save_picture("02-strokes")

    def _interpolate(self) -> None:
        """Complete the label between the annotated slices."""
        numbers = self._list_annotated_slices()
        tools = self._panel.annotate.tools
        self._show_tools()
        tools.all_checkbox.setChecked(True)
        tools.fill_button.click()
        wait(lambda: not self._session.annotation.operation)
        self._layers.go_to_slice((numbers[1] + numbers[2]) // 2, 0)
        settle(2)
        self._save_picture("03-filled")
        self._panel.annotate.completion.scan_button.click()

    def _grow(self) -> None:
        """Grow from scribbles in another case, without and with a region of interest."""
        self._show_case(self._session.require_project().unlabeled_cases()[0].id)
        truth = self._read_truth()
        middle = int(np.argmax((truth == 1).sum(axis=(1, 2))))
        self._layers.go_to_slice(middle, 0)
        scribble(self._layers.find_layer("label"), truth, middle)
        self._propose_and_discard("04-grow")

        roi_controls = self._panel.annotate.tools.roi_controls
        roi_controls.draw_button.click()
        roi_layer: Any = self._layers.roi.layer
        roi_layer.add(make_rectangle(truth, middle))
        settle(0.5)
        self._layers.roi.finish_editing()
        self._propose_and_discard("04-region")
        roi_controls.remove_button.click()

    def _show_tools(self) -> None:
        """Unfold the tools, which are folded in a low window, and scroll to them."""
        self._panel.annotate.collapsible.expand(animate=False)
        settle(0.5)
        scroll_area = self._panel.tabs.currentWidget()
        scroll_area.ensureWidgetVisible(self._panel.annotate.tools.discard_button)

    def _propose_and_discard(self, name: str) -> None:
        tools = self._panel.annotate.tools
        tools.grow_button.click()
        wait(lambda: self._session.annotation.has_proposal)
        settle(1)
        self._save_picture(name)
        tools.discard_button.click()

    def _train(self, minutes: float) -> None:
        """Train, and predict all unlabeled cases."""
        session = self._session
        project = session.require_project()
        project.set_split(project.cases[1].id, "validation")
        self._panel.sections.show_section(self._panel.train)
        time_limit_s = 60 * minutes
        previews: list[float] = []  # progress of the run at each preview

        def record_preview(event: Event) -> None:
            if event.event == "preview":
                previews.append(session.status.progress)

        session.event.connect(record_preview)
        session.start_training(make_config("dycon", time_limit=time_limit_s))
        wait(lambda: self._layers.find_layer("prediction") is not None, time_limit_s + 120)
        # The first preview comes after a few steps and shows nothing useful.
        wait(
            lambda: (
                session.status.progress > 0.6
                and (max(previews, default=0.0) > 0.3 or session.status.progress > 0.9)
            ),
            time_limit_s + 120,
        )
        settle(1)
        self._save_picture("05-train")
        wait(lambda: session.status.phase == "idle", time_limit_s + 300)
        session.predict([case.id for case in project.unlabeled_cases()])
        wait(lambda: not session.review.is_predicting, 600)
        settle(2)

    def _review_uncertain_region(self) -> None:
        self._panel.sections.show_section(self._panel.review)
        self._show_case(self._session.suggest_next()[0])
        wait(lambda: self._session.require_case().prediction is not None)
        settle(1)
        self._panel.review.next_region_button.click()
        # A low window shows the navigation only after scrolling.
        self._panel.tabs.currentWidget().ensureWidgetVisible(self._panel.review.next_region_button)
        settle(1)  # the circle around the region is hidden after two seconds
        self._save_picture("06-uncertain")
        self._show_large_window()

    def _show_large_window(self) -> None:
        """Show the three views, as on a large screen."""
        self._viewer.window.resize(*LARGE_WINDOW_SIZE)
        settle(3)
        self._panel.review.previous_region_button.click()
        self._panel.review.next_region_button.click()
        settle(1)
        self._save_picture("window")
        self._viewer.window.resize(*WINDOW_SIZE)
        settle(3)

    def _correct_prediction(self) -> None:
        """Accept the prediction, and correct the slice with the largest error."""
        review = self._panel.review
        review.accept_button.click()
        truth = self._read_truth()
        is_missed = (truth != self._session.require_case().prediction) & (truth > 0)
        self._layers.go_to_slice(int(np.argmax(is_missed.sum(axis=(1, 2)))), 0)
        self._viewer.reset_view()
        outline(self._layers.find_layer("label"), truth, self._layers.slice_index)
        review.toggles["uncertainty"].setChecked(False)
        review.toggles["difference"].setChecked(True)
        settle(2)
        self._save_picture("07-difference")
        review.toggles["difference"].setChecked(False)
        review.toggles["uncertainty"].setChecked(True)

    def _show_shortcuts(self) -> None:
        dialog = ShortcutsDialog(self._panel, self._panel.shortcuts)
        dialog.show()
        settle(1)
        dialog.grab().save(str(self._pictures / "08-keys.png"))
        dialog.close()

    def _show_case(self, case_id: str) -> None:
        self._session.show_case(case_id)
        wait(lambda: self._session.case is not None and self._session.case.id == case_id)

    def _read_truth(self) -> Any:
        """Return the true label ``(D, H, W)`` of the case that is shown."""
        name = f"{self._session.require_case().id}.nii.gz"
        return io.read_label(self._folder / "cohort" / "truth" / name).array

    def _list_annotated_slices(self) -> list[int]:
        """Return slices spread evenly over the structures of the case that is shown."""
        with_structure = np.flatnonzero((self._read_truth() > 0).any(axis=(1, 2)))
        first, last = with_structure[0] + 1, with_structure[-1] - 1
        numbers: list[int] = np.linspace(first, last, ANNOTATED_SLICES).round().astype(int).tolist()
        return numbers

    def _save_picture(self, name: str) -> None:
        """Save a picture of the window."""
        for widget in QApplication.allWidgets():  # notifications would cover the scan
            if type(widget).__name__ == "NapariQtNotification":
                widget.close()
        QApplication.processEvents()
        path = self._pictures / f"{name}.png"
        self._viewer.screenshot(str(path), canvas_only=False, flash=False)


def outline(label: Any, truth: Any, number: int) -> None:
    """Outline every structure in a slice as with the polygon tool, the larger one first."""
    for value in (1, 2):
        mask = np.pad(truth[number] == value if value > 1 else truth[number] > 0, 1)
        for contour in find_contours(mask.astype(float), 0.5):
            corners = np.clip(approximate_polygon(contour - 1, 0.7), 0, np.array(mask.shape) - 3)
            if len(corners) > 3:
                label.paint_polygon([np.array([number, *corner]) for corner in corners], value)


def make_rectangle(truth: Any, number: int) -> list[list[int]]:
    """Return the corners of a rectangle around the upper half of the organ in a slice."""
    rows, columns = np.nonzero(truth[number] > 0)
    top, bottom = rows.min() - 2, (rows.min() + rows.max()) // 2
    left, right = columns.min() - 2, columns.max() + 2
    return [[number, y, x] for y, x in ((top, left), (top, right), (bottom, right), (bottom, left))]


def scribble(label: Any, truth: Any, number: int) -> None:
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


def settle(seconds: float) -> None:
    """Run the event loop for some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Run the event loop until a condition holds; exit after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"the condition did not hold within {seconds:g} s")
        settle(0.05)


if __name__ == "__main__":
    main()
