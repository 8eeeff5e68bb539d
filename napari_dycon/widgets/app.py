"""Open napari with the panel docked, for the ``gui`` and ``demo`` commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import napari
from napari.settings import get_settings

from napari_dycon.widgets.layers.napari_internals import (
    get_main_window,
    get_qt_viewer,
    suppress_qt5_notice,
)
from napari_dycon.widgets.window.layer_list_dock import LayerListDock
from napari_dycon.widgets.window.own_window import PROGRAM, OwnWindow

if TYPE_CHECKING:
    from napari_dycon.widgets.panel import DyconPanel

PLUGIN_NAME, WIDGET_NAME = "napari-dycon", "DyCON"


def make_window(
    project: Path | None = None, *, show: bool = True
) -> tuple[napari.Viewer, DyconPanel]:
    """Make a viewer with the panel, and open a project in it."""
    suppress_qt5_notice()
    viewer = napari.Viewer(title=PROGRAM, show=show)
    _, panel = viewer.window.add_plugin_dock_widget(PLUGIN_NAME, WIDGET_NAME)
    hide_docks(viewer, panel)
    OwnWindow(viewer, panel)
    if project is not None:
        panel.session.open_project(project)
    return viewer, panel


def hide_docks(viewer: napari.Viewer, panel: DyconPanel) -> None:
    """Leave the space of napari's docks to the canvas; its Window menu shows them again.

    Toolbar and panel have what a label needs. The list of layers is hidden in narrow windows only.
    """
    qt_viewer = get_qt_viewer(viewer)
    qt_viewer.dockLayerControls.setVisible(False)
    LayerListDock(panel.canvas_area.window_width, qt_viewer.dockLayerList)


def open_window(project: Path | None = None) -> None:
    """Open the window and stay until it is closed."""
    viewer, _ = make_window(project)
    if get_settings().application.window_size is None:  # napari restores the size of last time
        get_main_window(viewer).showMaximized()
    napari.run()
