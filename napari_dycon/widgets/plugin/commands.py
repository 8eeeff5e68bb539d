"""Commands of the command palette: what the buttons of the panel do, in the window in front.

Where the panel is not open yet, a command opens it.
"""

from __future__ import annotations

from napari.viewer import Viewer

from napari_dycon.widgets.panel import DyconPanel
from napari_dycon.widgets.window.helpers import guarded
from napari_dycon.widgets.window.orthogonal import HINT, installed, toggle
from napari_dycon.widgets.window.shortcuts import show_card


def panel_of(viewer: Viewer) -> DyconPanel:
    """Panel of a window; it is opened where it is not."""
    for widget in viewer.window.dock_widgets.values():
        if isinstance(widget, DyconPanel):
            return widget
    _, panel = viewer.window.add_plugin_dock_widget("napari-dycon", "DyCON")
    assert isinstance(panel, DyconPanel)
    return panel


def show_keys(viewer: Viewer) -> None:
    """Show the card of all keys."""
    show_card(panel_of(viewer))


def fill_between(viewer: Viewer) -> None:
    """Fill the structure between annotated slices."""
    panel = panel_of(viewer)
    guarded(panel.session, panel.annotate.tools.fill_between)()


def copy_before(viewer: Viewer) -> None:
    """Copy the structure from the slice before."""
    panel = panel_of(viewer)
    guarded(panel.session, lambda: panel.annotate.tools.copy_neighbor(-1))()


def copy_after(viewer: Viewer) -> None:
    """Copy the structure from the slice after."""
    panel = panel_of(viewer)
    guarded(panel.session, lambda: panel.annotate.tools.copy_neighbor(1))()


def grow(viewer: Viewer) -> None:
    """Grow structures from strokes."""
    panel = panel_of(viewer)
    guarded(panel.session, panel.annotate.tools.grow_strokes)()


def grow_box(viewer: Viewer) -> None:
    """Draw or change the box that growing stays in."""
    panel = panel_of(viewer)
    guarded(panel.session, panel.layers.box.toggle)()


def accept_grown(viewer: Viewer) -> None:
    """Accept what was grown."""
    panel = panel_of(viewer)
    guarded(panel.session, panel.session.annotation.accept_proposal)()


def discard_grown(viewer: Viewer) -> None:
    """Discard what was grown."""
    panel = panel_of(viewer)
    guarded(panel.session, panel.session.annotation.discard_proposal)()


def finish_slice(viewer: Viewer) -> None:
    """This slice is done."""
    panel = panel_of(viewer)
    guarded(panel.session, panel.annotate.finish_slice)()


def next_place(viewer: Viewer) -> None:
    """Next uncertain place."""
    panel = panel_of(viewer)
    guarded(panel.session, panel.review.next_place)()


def previous_place(viewer: Viewer) -> None:
    """Uncertain place before."""
    panel = panel_of(viewer)
    guarded(panel.session, panel.review.previous_place)()


def next_case(viewer: Viewer) -> None:
    """Next case worth labeling."""
    panel = panel_of(viewer)
    guarded(panel.session, panel.review.next_case)()


def accept_prediction(viewer: Viewer) -> None:
    """Accept the prediction of the whole case."""
    panel = panel_of(viewer)
    guarded(panel.session, panel.review.accept)()


def accept_slice(viewer: Viewer) -> None:
    """Accept the prediction in this slice."""
    panel = panel_of(viewer)
    guarded(panel.session, panel.review.accept_this_slice)()


def orthogonal_views(viewer: Viewer) -> None:
    """Show or hide orthogonal views, where napari-orthogonal-views is installed."""
    panel = panel_of(viewer)
    if installed():
        toggle(viewer)
    else:
        panel.session.message.emit("warning", HINT)
