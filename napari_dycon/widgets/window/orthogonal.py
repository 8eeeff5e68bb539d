"""Views from all three sides, by napari-orthogonal-views where that is installed."""

from __future__ import annotations

import importlib.util

from napari.layers import Labels, Layer
from napari.viewer import Viewer
from qtpy.QtWidgets import QToolButton

from napari_dycon.widgets.layers.label_layer import CaseLabels
from napari_dycon.widgets.layers.roi_layer import BoxLayer
from napari_dycon.widgets.window.helpers import set_enabled

PACKAGE = "napari_orthogonal_views"
TIP = "Slices from all three sides at once, where one can paint too"
HINT = "napari-orthogonal-views is not installed; pip install napari-orthogonal-views"


def installed() -> bool:
    """Whether the package is there; it is not imported."""
    return importlib.util.find_spec(PACKAGE) is not None


def orthogonal_button(viewer: Viewer) -> QToolButton:
    """Button that shows and hides the views; off, with a hint, where they are not installed."""
    result = QToolButton()
    result.setText("⊞")
    result.setProperty("dycon_tip", TIP)
    set_enabled(result, "" if installed() else HINT)
    result.clicked.connect(lambda: toggle(viewer))
    return result


def toggle(viewer: Viewer) -> None:
    """Show or hide the views; in them the brush keeps its limits."""
    from napari_orthogonal_views import ortho_view_manager as views

    manager = views._get_manager(viewer)
    manager.set_copy_layer(copy_layer)
    manager.set_sync_filters({BoxLayer: {"forward_exclude": "*", "reverse_exclude": "*"}})
    views.toggle_orthogonal_views(viewer)


def copy_layer(layer: Layer, name: str = "") -> Layer:
    """Copy a layer for another view; both paint the same voxels under the same limits."""
    if isinstance(layer, BoxLayer):  # the rectangle is that of the slice in the main view
        return BoxLayer(ndim=3, name=layer.name, scale=layer.scale, units=layer.units)
    data, settings, kind = layer.as_layer_data_tuple()
    settings["metadata"] = {**settings.get("metadata", {}), "viewer_name": name}
    if not isinstance(layer, CaseLabels):
        copied = Layer.create(data, settings, kind)
        if isinstance(layer, Labels) and isinstance(copied, Labels):
            copied._undo_history, copied._redo_history = layer._undo_history, layer._redo_history
        return copied
    twin = CaseLabels(data, image=layer.limits.scan, **settings)
    twin._undo_history, twin._redo_history = layer._undo_history, layer._redo_history
    twin.limits = layer.limits
    return twin
