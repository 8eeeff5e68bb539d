"""Commands of the command palette; they do the same as the buttons of the panel.

A command opens the panel if it is not open yet.
"""

from __future__ import annotations

from napari.viewer import Viewer

from napari_dycon.widgets.panel import DyconPanel
from napari_dycon.widgets.window.helpers import report_errors


def get_panel(viewer: Viewer) -> DyconPanel:
    """Return the panel of a window, opening it if necessary."""
    for widget in viewer.window.dock_widgets.values():
        if isinstance(widget, DyconPanel):
            return widget
    _, panel = viewer.window.add_plugin_dock_widget("napari-dycon", "DyCON")
    assert isinstance(panel, DyconPanel)
    return panel


def show_keyboard_shortcuts(viewer: Viewer) -> None:
    """Show the keyboard shortcuts."""
    get_panel(viewer).show_shortcuts()


def fill_between(viewer: Viewer) -> None:
    """Interpolate the structure between annotated slices."""
    panel = get_panel(viewer)
    report_errors(panel.session, panel.annotate.tools.fill_between)()


def copy_from_previous_slice(viewer: Viewer) -> None:
    """Copy the structure from the previous slice."""
    panel = get_panel(viewer)
    report_errors(panel.session, lambda: panel.annotate.tools.copy_neighbor_slice(-1))()


def copy_from_next_slice(viewer: Viewer) -> None:
    """Copy the structure from the next slice."""
    panel = get_panel(viewer)
    report_errors(panel.session, lambda: panel.annotate.tools.copy_neighbor_slice(1))()


def grow_from_scribbles(viewer: Viewer) -> None:
    """Grow structures from scribbles."""
    panel = get_panel(viewer)
    report_errors(panel.session, panel.annotate.tools.grow_from_scribbles)()


def edit_roi(viewer: Viewer) -> None:
    """Edit the growth region."""
    panel = get_panel(viewer)
    report_errors(panel.session, panel.layers.roi.toggle_editing)()


def accept_proposal(viewer: Viewer) -> None:
    """Accept the proposal."""
    panel = get_panel(viewer)
    report_errors(panel.session, panel.session.annotation.accept_proposal)()


def discard_proposal(viewer: Viewer) -> None:
    """Discard the proposal."""
    panel = get_panel(viewer)
    report_errors(panel.session, panel.session.annotation.discard_proposal)()


def mark_slice_complete(viewer: Viewer) -> None:
    """Mark the current slice as complete."""
    panel = get_panel(viewer)
    report_errors(panel.session, panel.annotate.mark_slice_complete)()


def next_uncertain_region(viewer: Viewer) -> None:
    """Go to the next uncertain region."""
    panel = get_panel(viewer)
    report_errors(panel.session, panel.review.next_uncertain_region)()


def previous_uncertain_region(viewer: Viewer) -> None:
    """Go to the previous uncertain region."""
    panel = get_panel(viewer)
    report_errors(panel.session, panel.review.previous_uncertain_region)()


def next_case(viewer: Viewer) -> None:
    """Show the next suggested case."""
    panel = get_panel(viewer)
    report_errors(panel.session, panel.review.next_case)()


def accept_prediction(viewer: Viewer) -> None:
    """Accept the prediction of the whole case."""
    panel = get_panel(viewer)
    report_errors(panel.session, panel.review.accept_prediction)()


def accept_slice(viewer: Viewer) -> None:
    """Accept the prediction in this slice."""
    panel = get_panel(viewer)
    report_errors(panel.session, panel.review.accept_slice)()


def toggle_linked_views(viewer: Viewer) -> None:
    """Show axial, coronal and sagittal views side by side, or only one."""
    get_panel(viewer).canvas_area.views.toggle_side_views()


def show_next_channel(viewer: Viewer) -> None:
    """Show the next channel of the scan."""
    get_panel(viewer).layers.intensity_window.show_next_channel()
