"""Uses of private parts of napari, for version 0.9, by its window and viewer.

napari may change these without notice: an update of napari is checked against this module and
``napari_layers``, which has the layers. Other modules use the public names defined here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from napari._qt import qt_main_window
from napari._qt.containers._base_item_model import ItemRole
from napari.components import ViewerModel
from napari.layers import Layer
from napari.qt import QtViewer
from napari.utils.events import EventEmitter
from napari.viewer import Viewer
from qtpy.QtWidgets import QApplication, QHBoxLayout, QLabel, QMainWindow, QWidget

SPINNER_SPEED_PERCENT = 8


def connect_before_napari(emitter: EventEmitter, callback: Callable[..., object]) -> None:
    """Connect a callback that runs before those of napari, which napari otherwise calls first."""
    emitter = getattr(emitter, "__wrapped__", emitter)  # behind the proxy for plugins
    emitter.connect(callback)
    index = emitter.callbacks.index(emitter._normalize_cb(callback)[0])
    for items in (emitter._callbacks, emitter._callback_refs, emitter._callback_pass_event):
        items.insert(0, items.pop(index))


def set_rows_hidden(viewer: Any, hidden: Sequence[Layer]) -> None:
    """Hide the rows of some layers in napari's list, and show all others.

    A viewer without a window has no list.
    """
    window = getattr(getattr(viewer, "__wrapped__", viewer), "window", None)
    if window is None:
        return
    view = window._qt_viewer.layers
    model = view.model()
    for row in range(model.rowCount()):
        layer = model.index(row, 0).data(ItemRole)
        is_hidden = any(layer is other for other in hidden)
        if view.isRowHidden(row) != is_hidden:
            view.setRowHidden(row, is_hidden)


def omit_brush_box(model: ViewerModel) -> None:
    """Draw no box behind the circle of the brush.

    napari 0.9 leaves this box, a dark square, on the scan where the mouse left the canvas.
    """
    unwrap_viewer(model).canvas.overlays._brush_circle.box = False


def unwrap_viewer(viewer: ViewerModel) -> Any:
    """Return the viewer behind the proxy that napari gives to widgets of plugins."""
    return getattr(viewer, "__wrapped__", viewer)


def get_qt_viewer(viewer: Viewer) -> QtViewer:
    """Return the widget of the main canvas with its sliders."""
    return unwrap_viewer(viewer).window._qt_viewer


def get_main_window(viewer: Viewer) -> QMainWindow:
    """Return the main window."""
    window: QMainWindow = unwrap_viewer(viewer).window._qt_window
    return window


def get_central_layout(viewer: Viewer) -> QHBoxLayout:
    """Return the layout of the main window that holds the canvas."""
    layout = get_main_window(viewer).centralWidget().layout()
    assert isinstance(layout, QHBoxLayout)
    return layout


def get_canvas_widget(qt_viewer: QtViewer) -> QWidget:
    """Return the OpenGL widget that draws a canvas and receives its mouse events."""
    widget: QWidget = qt_viewer.canvas.native
    return widget


def get_below_canvas_layout(qt_viewer: QtViewer) -> Any:
    """Return the vertical layout that holds a canvas and, below it, its sliders."""
    return qt_viewer.dims.parentWidget().layout()


def make_qt_viewer(model: ViewerModel) -> QtViewer:
    """Create the widget of a further canvas, without sliders and without a welcome screen."""
    qt_viewer = QtViewer(model)
    qt_viewer.setAcceptDrops(False)
    qt_viewer.dims.hide()
    return qt_viewer


def show_welcome(viewer: Viewer, text: str, keys: Sequence[tuple[str, str]]) -> None:
    """Replace what napari shows in an empty canvas.

    Parameters
    ----------
    keys : keys and what they do; napari has room for four
    """
    welcome = get_qt_viewer(viewer)._welcome_widget
    welcome._label.setText(text)
    rows = welcome.__dict__.setdefault("_napari_rows", welcome._shortcut_rows)
    welcome._shortcut_rows = []  # napari would fill them again
    padded = [*keys, *[("", "")] * len(rows)]
    for (_, key_label, text_label), (key, what) in zip(rows, padded, strict=False):
        key_label.setText(key)
        text_label.setText(what)
    for label in (welcome._version_label, welcome._tip_label):
        label.hide()


def suppress_qt5_notice() -> None:
    """Do not show napari's notice that it will drop Qt 5.

    Whoever uses the window cannot do anything about it: this package asks for a napari that
    supports its Qt. The installation guide tells of it.
    """
    qt_main_window.SHOW_QT_WARNING = False


def slow_spinner() -> None:
    """Slow down the animation that napari shows while the activity dock has tasks.

    Each frame redraws the whole window with the canvas. Without a graphics card that took half a
    processor core from the training (measured).
    """
    for window in QApplication.topLevelWidgets():
        for label in window.findChildren(QLabel):
            if (movie := label.movie()) is not None:
                movie.setSpeed(SPINNER_SPEED_PERCENT)


def close_notifications() -> None:
    """Close the notifications that napari shows over the canvas."""
    for widget in QApplication.allWidgets():
        if type(widget).__name__ == "NapariQtNotification":
            widget.close()
