"""Orthogonal views, where napari-orthogonal-views is installed."""

from __future__ import annotations

import importlib.util

from napari.layers import Labels, Layer
from napari.viewer import Viewer
from qtpy.QtWidgets import QToolButton

from napari_dycon.widgets.layers.label_layer import CaseLabels
from napari_dycon.widgets.layers.napari_internals import get_orthogonal_manager, share_history
from napari_dycon.widgets.layers.roi_layer import RoiLayer
from napari_dycon.widgets.window.helpers import set_enabled

PACKAGE_NAME = "napari_orthogonal_views"
BUTTON_TIP = "Axial, coronal and sagittal views; you can paint in each"
INSTALL_HINT = "napari-orthogonal-views is not installed; pip install napari-orthogonal-views"


def is_installed() -> bool:
    """Whether the package is installed; it is not imported."""
    return importlib.util.find_spec(PACKAGE_NAME) is not None


def make_orthogonal_button(viewer: Viewer) -> QToolButton:
    """Create the button that toggles the views; disabled with a hint if they are not installed."""
    result = QToolButton()
    result.setText("⊞")
    result.setProperty("dycon_tip", BUTTON_TIP)
    set_enabled(result, "" if is_installed() else INSTALL_HINT)
    result.clicked.connect(lambda: toggle_views(viewer))
    return result


def toggle_views(viewer: Viewer) -> None:
    """Show or hide the views; the limits of the brush apply there too."""
    from napari_orthogonal_views import ortho_view_manager as views

    manager = get_orthogonal_manager(viewer)
    manager.set_copy_layer(copy_layer)
    manager.set_sync_filters({RoiLayer: {"forward_exclude": "*", "reverse_exclude": "*"}})
    views.toggle_orthogonal_views(viewer)


def copy_layer(layer: Layer, name: str = "") -> Layer:
    """Copy a layer for another view; both paint the same voxels under the same limits."""
    if isinstance(layer, RoiLayer):  # the rectangle belongs to the slice of the main view
        return RoiLayer(ndim=3, name=layer.name, scale=layer.scale, units=layer.units)
    data, settings, layer_type = layer.as_layer_data_tuple()
    settings["metadata"] = {**settings.get("metadata", {}), "viewer_name": name}
    if not isinstance(layer, CaseLabels):
        layer_copy = Layer.create(data, settings, layer_type)
        if isinstance(layer, Labels) and isinstance(layer_copy, Labels):
            share_history(layer, layer_copy)
        return layer_copy
    label_copy = CaseLabels(data, image=layer.limits.image, **settings)
    share_history(layer, label_copy)
    label_copy.limits = layer.limits
    return label_copy
