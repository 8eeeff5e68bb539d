"""Everything around the canvas: linked views, the toolbar above and the slice strip below it."""

from __future__ import annotations

from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

from napari_dycon.session import Session
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.layers.napari_internals import (
    get_below_canvas_layout,
    get_main_window,
    get_qt_viewer,
)
from napari_dycon.widgets.layers.responsiveness import (
    exempt_libraries_from_collection,
    load_layer_libraries,
    shorten_thread_switches,
)
from napari_dycon.widgets.review.slice_strip import SliceStrip
from napari_dycon.widgets.views.linked_views import LinkedViews
from napari_dycon.widgets.views.toolbar import ViewToolbar
from napari_dycon.widgets.window.preferences import get_preferences
from napari_dycon.widgets.window.window_width import WindowWidth

MIN_WIDTH_FOR_SIDE_VIEWS = 1500  # pixels of the window, which may be framed
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
        self.window_width = WindowWidth(get_main_window(viewer))
        self._shows_side_views = False  # what was chosen for the width of the window
        self._is_automatic = True  # until the user shows or hides the side views
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
        shorten_thread_switches()
        self._session.task_runner.submit(
            load_layer_libraries, lambda _: None, self._session.report_error
        )
        get_main_window(self._viewer).addToolBar(Qt.ToolBarArea.TopToolBarArea, self.toolbar)
        get_below_canvas_layout(get_qt_viewer(self._viewer)).addWidget(self._bar)
        self._show_tip(self._session.project)
        self.window_width.changed.connect(self._arrange)
        self.views.arrangement_changed.connect(self._on_arrangement_changed)
        self._arrange(self.window_width.width)
        self._on_case_shown(self._session.case)

    def close(self) -> None:
        """Remove everything."""
        self._session.case_shown.disconnect(self._on_case_shown)
        self._session.project_changed.disconnect(self._show_tip)
        self.toolbar.disconnect_events()
        self.window_width.close()
        self._is_automatic = False
        self.views.close()
        if self._is_started:
            get_main_window(self._viewer).removeToolBar(self.toolbar)
            get_qt_viewer(self._viewer).dims.show()
        for widget in (self._bar, self.toolbar):
            widget.hide()
            widget.setParent(None)
            widget.deleteLater()

    def _arrange(self, width: int) -> None:
        """Show the side views in a wide window and hide them in a narrow one."""
        if self._is_automatic and get_preferences().views.side_views:
            self._shows_side_views = width >= MIN_WIDTH_FOR_SIDE_VIEWS
            self.views.show_side_views(self._shows_side_views)

    def _on_arrangement_changed(self) -> None:
        self._is_automatic &= self.views.has_side_views == self._shows_side_views

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
