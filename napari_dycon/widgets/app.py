"""Open napari with the panel docked, for the ``gui`` and ``demo`` commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import napari

if TYPE_CHECKING:
    from napari_dycon.widgets.panel import DyconPanel

PLUGIN_NAME, WIDGET_NAME = "napari-dycon", "DyCON"


def make_window(
    project: Path | None = None, *, show: bool = True
) -> tuple[napari.Viewer, DyconPanel]:
    """Make a viewer with the panel, and open a project in it."""
    viewer = napari.Viewer(title="napari-dycon", show=show)
    _, panel = viewer.window.add_plugin_dock_widget(PLUGIN_NAME, WIDGET_NAME)
    if project is not None:
        panel.session.open_project(project)
    return viewer, panel


def open_window(project: Path | None = None) -> None:
    """Open the window and stay until it is closed."""
    make_window(project)
    napari.run()
