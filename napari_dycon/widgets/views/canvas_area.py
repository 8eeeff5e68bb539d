"""Everything around the canvas: linked views, the toolbar above and the slice strip below it."""

from __future__ import annotations

from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QHBoxLayout, QPushButton, QWidget

from napari_dycon.session import Session
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.layers.napari_internals import (
    get_below_canvas_layout,
    get_main_window,
    get_qt_viewer,
)
from napari_dycon.widgets.layers.preloading import (
    exempt_libraries_from_collection,
    load_layer_libraries,
)
from napari_dycon.widgets.review.slice_strip import SliceStrip
from napari_dycon.widgets.views.linked_views import LinkedViews
from napari_dycon.widgets.views.toolbar import ViewToolbar
from napari_dycon.widgets.window.preferences import get_preferences

MIN_WIDTH_FOR_SIDE_VIEWS = 1600  # pixels of the screen
SPATIAL_DIMENSIONS = 3
NO_PROJECT_TIP = "To begin, open a folder with scans, or a project, in the DyCON panel."
NO_CASE_TIP = "Select a case in the list of the DyCON panel."


class CanvasArea:
    """Adds the views, the toolbar and the strip to the main window, and removes them again."""

    def __init__(
        self,
        session: Session,
        viewer: Viewer,
        layers: CaseLayers,
        strip: SliceStrip,
        slice_button: QPushButton,
    ) -> None:
        self._session = session
        self._viewer = viewer
        self._bar = QWidget()  # below the main view
        row = QHBoxLayout(self._bar)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(strip, 1)
        row.addWidget(slice_button)
        self._is_started = False
        self.views = LinkedViews(viewer, layers)
        self.toolbar = ViewToolbar(session, viewer, layers, self.views)
        session.case_shown.connect(self._on_case_shown)
        session.project_changed.connect(self._show_tip)

    def start(self) -> None:
        """Add everything once the panel is part of a main window."""
        if self._is_started:
            return
        self._is_started = True
        exempt_libraries_from_collection()
        self._session.task_runner.submit(
            load_layer_libraries, lambda _: None, self._session.report_error
        )
        get_main_window(self._viewer).addToolBar(Qt.ToolBarArea.TopToolBarArea, self.toolbar)
        get_below_canvas_layout(get_qt_viewer(self._viewer)).addWidget(self._bar)
        self._show_tip(self._session.project)
        screen = QApplication.primaryScreen()
        is_wide = screen is not None and screen.size().width() >= MIN_WIDTH_FOR_SIDE_VIEWS
        if is_wide and get_preferences().views.side_views:
            self.views.show_side_views(True)
        self._on_case_shown(self._session.case)

    def close(self) -> None:
        """Remove everything."""
        self._session.case_shown.disconnect(self._on_case_shown)
        self._session.project_changed.disconnect(self._show_tip)
        self.toolbar.disconnect_events()
        self.views.close()
        if self._is_started:
            get_main_window(self._viewer).removeToolBar(self.toolbar)
            get_qt_viewer(self._viewer).dims.show()
        for widget in (self._bar, self.toolbar):
            widget.hide()
            widget.setParent(None)
            widget.deleteLater()

    def _show_tip(self, project: object) -> None:
        """Say in the empty canvas what to do next."""
        if self._is_started:
            tip = NO_PROJECT_TIP if project is None else NO_CASE_TIP
            get_qt_viewer(self._viewer).set_welcome_tips((tip,))

    def _on_case_shown(self, case: object) -> None:
        """Replace napari's sliders, which count from 0, by the strip of slices."""
        is_shown = case is not None
        self._bar.setVisible(is_shown)
        has_other_dimensions = self._viewer.dims.ndim > SPATIAL_DIMENSIONS
        get_qt_viewer(self._viewer).dims.setVisible(not is_shown or has_other_dimensions)
