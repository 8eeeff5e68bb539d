"""A window on an example with its three views, shared by the tests of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers.box_scans import make_scan_project
from helpers.example_window import open_example, reset_window
from helpers.gestures import Gestures

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
    """

    def __init__(self, viewer: Any, panel: Any, make_project: Callable[[], Project]) -> None:
        self.viewer, self.panel = viewer, panel
        self._make_project = make_project
        self._visible = dict(panel.layers.visible)
        self._state: Any = None

    def prepare(self, qtbot: Any) -> None:
        """Show scan-3 in three views, as after opening it, without a tool."""
        if self._state is None or self._describe() != self._state:
            self.close()
            open_example(self.panel, self._make_project())
            self.panel.canvas_area.views.show_side_views(True)
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
        self.panel.message_label.dismiss()

    def close(self) -> None:
        """Close the project."""
        if self._state is not None:
            reset_window(self.viewer, self.panel, self._visible)


@pytest.fixture(scope="module")
def shared_example(
    module_window: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedExample]:
    """Window on the example for all tests of a file."""
    viewer, panel = module_window
    example = SharedExample(
        viewer, panel, lambda: make_scan_project(tmp_path_factory.mktemp("example"))
    )
    yield example
    example.close()


@pytest.fixture
def gestures(shared_example: SharedExample, qtbot: Any) -> Gestures:
    """Three views of scan-3, without a tool."""
    shared_example.prepare(qtbot)
    return Gestures(shared_example.viewer, shared_example.panel, qtbot)
