"""A window on an example, opened once for all tests of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from helpers.box_scans import make_scan_project
from helpers.example_window import WINDOW_SIZE, open_example, reset_window
from napari_dycon.project.store import Project
from napari_dycon.widgets.views.planes import Plane
from napari_dycon.widgets.window.preferences import get_preferences


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
        if self._state is not None:
            self._restore_window(qtbot)
        if self._state is None or self._describe() != self._state:
            self.close()
            open_example(self.panel, self._make_project())
            self.panel.canvas_area.views.show_side_views(self._has_side_views)
            qtbot.wait(400)
            self._state = self._describe()
            self._label = self.panel.session.case.label.copy()
            self._window = self.panel.layers.intensity_window.range
        self._restore()
        qtbot.wait(50)

    def _describe(self) -> Any:
        """What tells whether another case, layer or view is shown than after opening."""
        session, views = self.panel.session, self.panel.canvas_area.views
        if session.project is None or session.case is None:
            return None
        main_window = self.viewer.window._qt_window
        return (
            session.project.path,
            [case.id for case in session.project.cases],
            session.case.id,
            [
                [(layer.name, layer.visible, getattr(layer, "contour", None)) for layer in layers]
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
        layers.set_brush_mm(get_preferences().annotate.brush_mm)
        layers.intensity_window.set_range(*self._window)
        views.show_plane(Plane.AXIAL)
        views.activate(views.main_view)
        views.gestures.leave(views.main_view)
        image = session.case.image
        views.gestures.move_to(
            tuple(n * s / 2 for n, s in zip(image.shape, image.spacing_mm, strict=True))
        )
        self.viewer.reset_view()
        self.panel.tabs.setCurrentIndex(0)
        self.panel.message_label.dismiss()
        self.panel.message_label._recent.clear()

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
