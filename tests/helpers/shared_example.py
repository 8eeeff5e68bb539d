"""A window on an example, opened once for all tests of a file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from helpers.box_scans import make_scan_project
from helpers.example_window import (
    WINDOW_SIZE,
    open_example,
    reset_controls,
    reset_window,
    wait_until,
)
from napari_dycon.application.intensity_windows import AUTOMATIC
from napari_dycon.project.store import Project

KEPT_HIDDEN = {"region marker", "difference", "proposal"}  # layers that are used again


class SharedExample:
    """The example of ``open_example``, opened once and restored before each test.

    Opening it takes napari seconds. That is done again only after a test that changed more than
    the label, the tool and what is shown of the case, such as the case or the layers.

    Parameters
    ----------
    make_project : makes a new project
    has_side_views : whether all three views are shown
    """

    def __init__(
        self,
        viewer: Any,
        panel: Any,
        make_project: Callable[[], Project],
        *,
        has_side_views: bool,
    ) -> None:
        self.viewer, self.panel = viewer, panel
        self._make_project = make_project
        self._has_side_views = has_side_views
        self._visible = dict(panel.layers.visible)
        self._state: Any = None

    def prepare(self, qtbot: Any) -> None:
        """Show scan-3, as after opening it, without a tool."""
        was_3d = self.viewer.dims.ndisplay == 3  # whose camera is kept for the case
        if self._state is not None:
            self._restore_window(qtbot)
            reset_controls(self.panel, self._visible)
            self._restore_case(qtbot)
        if self._state is None or was_3d or self._describe() != self._state:
            self.close()
            open_example(self.panel, self._make_project())
            self.panel.canvas_area.views.show_side_views(self._has_side_views)
            qtbot.wait(400)
            self._state = self._describe()
            project, case = self.panel.session.project, self.panel.session.case
            self._case = project.path, case.id, project.get_case(case.id).status
            self._label = case.label.copy()
        self._restore()
        qtbot.wait(50)

    def _describe(self) -> Any:
        """What tells whether another case, layer or view is shown than after opening."""
        session, views = self.panel.session, self.panel.canvas_area.views
        if session.project is None or session.case is None:
            return None
        main_window = self.viewer.window._qt_window
        folder = session.project.path
        return (
            folder,
            (folder / "project.json").read_text(encoding="utf-8"),
            {
                path.relative_to(folder)
                for name in ("labels", "runs", "predictions")
                for path in (folder / name).rglob("*")
                if path.name != ".lock"
                and (path.name != f"{session.case.id}.nii.gz" or name == "predictions")
            },
            session.case.id,
            session.status,
            [
                [
                    (layer.name, layer.visible, getattr(layer, "contour", None))
                    for layer in layers
                    if layer.visible or layer.name not in KEPT_HIDDEN
                ]
                for layers in (
                    self.viewer.layers,
                    *(view.model.layers for view in views.side_views),
                )
            ],
            self.viewer.dims.ndisplay,
            self.viewer.theme,
            (main_window.width(), main_window.height()),
            self.panel.layers.roi.is_editing,
        )

    def _restore_window(self, qtbot: Any) -> None:
        """Return to slices, the theme and the size that tests begin with."""
        self.viewer.theme = "dark"
        main_window = self.viewer.window._qt_window
        if self.viewer.dims.ndisplay != 2 or (main_window.width(), main_window.height()) != (
            WINDOW_SIZE
        ):
            self.viewer.dims.ndisplay = 2
            main_window.resize(*WINDOW_SIZE)
            qtbot.wait(300)  # surfaces go, and views are arranged
        views = self.panel.canvas_area.views
        if views.has_side_views != self._has_side_views:
            views.show_side_views(self._has_side_views)
            qtbot.wait(300)

    def _restore_case(self, qtbot: Any) -> None:
        """Return to the case, with its label and status."""
        session = self.panel.session
        folder, case_id, status = self._case
        if session.project is None or session.project.path != folder:
            return
        if session.case is None or session.case.id != case_id:
            session.show_case(case_id)
            # Overlays come one a turn of the event loop, this one last.
            wait_until(lambda: self.panel.layers.find_layer("disagreement") is not None)
            qtbot.wait(200)
        label = self.panel.layers.find_layer("label")
        if label is None or session.project.read_only_reason:
            return
        self.panel.layers.cancel_click()
        self.panel.layers.marker.hide()
        session.annotation.set_paint_range(None)
        label.data = self._label
        session.flush()
        if session.project.get_case(case_id).status != status:
            session.set_case_status(case_id, status)
        wait_until(lambda: bool(self.panel.task_runner.is_idle))
        for records in (folder / "predictions").glob("*/accepted"):
            shutil.rmtree(records)

    def _restore(self) -> None:
        session, layers, views = (
            self.panel.session,
            self.panel.layers,
            self.panel.canvas_area.views,
        )
        layers.cancel_click()
        session.annotation.set_paint_range(None)
        label = layers.find_layer("label")
        label.data = self._label
        label.clear_history()
        session.flush()
        assert np.array_equal(session.case.label, self._label)
        self.panel.annotate.brush.select_value(1)
        label.mode = "pan_zoom"
        layers.intensity_window.choose_preset(AUTOMATIC)
        reset_controls(self.panel, self._visible)
        views.activate(views.main_view)
        views.gestures.leave(views.main_view)
        image = session.case.image
        views.gestures.move_to(
            tuple(n * s / 2 for n, s in zip(image.shape, image.spacing_mm, strict=True))
        )
        self.viewer.reset_view()

    def close(self) -> None:
        """Close the project."""
        if self._state is not None:
            reset_window(self.viewer, self.panel, self._visible)


def share_example(
    viewer: Any, panel: Any, folders: pytest.TempPathFactory, *, has_side_views: bool
) -> Iterator[SharedExample]:
    """Give the example of a window, for a fixture, and close it."""
    example = SharedExample(
        viewer,
        panel,
        lambda: make_scan_project(folders.mktemp("example")),
        has_side_views=has_side_views,
    )
    yield example
    example.close()
