"""Read-only overlays: prediction, uncertainty maps, difference and proposal.

Difference and proposal change often, and napari takes a tenth of a second to add or remove a layer.
Their layers are therefore kept once created, and hidden while they are empty.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from napari.layers import Image, Labels, Layer

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.predictions.source_text import describe_stage
from napari_dycon.core.colormaps import choose_color_range
from napari_dycon.core.types import LabelArray
from napari_dycon.engine.evaluation.label_comparison import difference_map
from napari_dycon.widgets.layers.colormaps import (
    DISAGREEMENT_CMAP,
    UNCERTAINTY_CMAP,
)
from napari_dycon.widgets.layers.label_layer import PredictedLabels
from napari_dycon.widgets.layers.layer_stack import LayerStack
from napari_dycon.widgets.layers.napari_layers import omit_drawing_visuals
from napari_dycon.widgets.window.preferences import get_preferences

MAP_COLORMAPS = {"uncertainty": UNCERTAINTY_CMAP, "disagreement": DISAGREEMENT_CMAP}
PREDICTION_ROLES = ("prediction", *MAP_COLORMAPS)
KEPT_ROLES = ("difference", "proposal")
CONTOURS = {"prediction": 1, "proposal": 2, "difference": 0}  # in voxels; 0 is filled


class Overlays:
    """Overlays of the active case; existing layers get new data, so nothing flickers."""

    def __init__(self, layers: LayerStack) -> None:
        self._layers = layers
        self._session = layers.session
        self.threshold = float(get_preferences().review.show_above)  # below it maps are clear
        self._opacity_before_hiding: dict[str, float] = {}  # roles, and their opacity before
        self._difference_request = 0
        # Show the newest prediction and its maps.
        self.prediction_steps: tuple[Callable[[], None], ...] = (
            self._show_prediction,
            *(partial(self._show_map, role) for role in MAP_COLORMAPS),
            self.update_difference,
        )

    def hide_until_loaded(self) -> None:
        """Hide overlays of the previous case until the steps of ``build_steps`` have run."""
        for role in (*PREDICTION_ROLES, *KEPT_ROLES):
            layer = self._layers.find_layer(role)
            if layer is None:
                self._opacity_before_hiding.pop(role, None)
            elif role not in self._opacity_before_hiding:
                self._opacity_before_hiding[role] = (
                    layer.opacity
                )  # may have been set in napari's own controls
                layer.opacity = 0.0

    def build_steps(self) -> list[Callable[[], None]]:
        """Return the steps that show the active case, to run one per event-loop iteration."""
        clearing = [partial(self._clear_layer, r) for r in (*KEPT_ROLES, *PREDICTION_ROLES)]
        return [*clearing, *self.prediction_steps]

    def _clear_layer(self, role: str) -> None:
        """Clear a layer and move it to the grid of the active case.

        Layers of the prediction are cleared only while it is being read, and stay hidden.
        """
        case, layer = self._session.case, self._layers.find_layer(role)
        is_kept = role in KEPT_ROLES
        if case is None or layer is None or not (is_kept or case.is_prediction_pending):
            return
        with self._layers.suppress_events():
            if is_kept:
                self._layers.empty_roles.add(role)
                self._layers.apply_visibility()
            self._layers.assign_to_case(layer, case, role)
            empty = np.float32(0) if role in MAP_COLORMAPS else np.uint8(0)
            # Hidden layers also determine the range of the sliders.
            layer.data = np.broadcast_to(empty, case.label.shape)
            if is_kept:
                self._reveal(layer, role)

    def _show_prediction(self) -> None:
        case = self._session.case
        if case is not None and not case.is_prediction_pending:
            self._show_labels("prediction", case.prediction)

    def set_threshold(self, threshold: float) -> None:
        """Show uncertainty and disagreement only above this value."""
        self.threshold = threshold
        for role in MAP_COLORMAPS:
            if (layer := self._layers.find_layer(role)) is not None:
                layer.contrast_limits = self.color_range(role)

    def update_difference(self, *_: object) -> None:
        """Recompute the difference of label and prediction, if it is shown."""
        self._compute_difference(self._session.task_runner.submit)

    def update_difference_later(self, *_: object) -> None:
        """Recompute the difference once the user pauses."""
        submit = self._session.task_runner.submit_when_idle
        self._compute_difference(partial(submit, "difference"))

    def _compute_difference(self, submit: Callable[..., None]) -> None:
        case = self._session.case
        self._difference_request += 1
        request = self._difference_request  # an earlier one may end later
        if case is None or case.prediction is None or not self._layers.visible["difference"]:
            self._show_labels("difference", None)
            return
        # The label is not copied: what an edit changes meanwhile is computed again.
        label, prediction = case.label, case.prediction

        def on_done(difference_labels: LabelArray) -> None:
            if request == self._difference_request and self._session.case is case:
                self._show_labels("difference", difference_labels)

        submit(lambda: difference_map(label, prediction), on_done, self._session.report_error)

    def show_proposal(self, proposal: LabelArray | None) -> None:
        """Show the outlines of a proposal until it is accepted or discarded."""
        self._show_labels("proposal", proposal)

    def _show_labels(self, role: str, data: LabelArray | None) -> None:
        case, layer = self._session.case, self._layers.find_layer(role)
        with self._layers.suppress_events():
            if data is None or case is None:
                if role in KEPT_ROLES:
                    self._layers.empty_roles.add(role)
                elif layer is not None:
                    self._remove(layer, role)
            else:
                self._layers.empty_roles.discard(role)
                if layer is None:
                    self._add_labels(role, case, data)
                else:
                    self._layers.assign_to_case(layer, case, role)
                    layer.data = data
                    self._reveal(layer, role)
                self._name_layer(role, case)
            self._layers.apply_visibility()

    def _add_labels(self, role: str, case: ActiveCase, data: LabelArray) -> None:
        layer_type = PredictedLabels if role == "prediction" else Labels
        layer = layer_type(
            data,
            name=role,
            colormap=self._layers.build_colormap(role),
            **self._layers.build_settings(case, role),
        )
        layer.contour = CONTOURS[role]
        layer.editable = False
        omit_drawing_visuals(layer)
        self._layers.insert(layer)
        if role != "proposal":  # the next proposal must be visible
            self._layers.track_visibility(layer)

    def _show_map(self, role: str) -> None:
        case, existing_layer = self._session.case, self._layers.find_layer(role)
        if case is not None and case.is_prediction_pending:
            return
        data = None if case is None else getattr(case, role)
        with self._layers.suppress_events():
            if case is None or data is None:
                if existing_layer is not None:
                    self._remove(existing_layer, role)
            elif existing_layer is not None:
                self._layers.assign_to_case(existing_layer, case, role)
                existing_layer.data = data
                if tuple(existing_layer.contrast_limits) != self.color_range(role):
                    existing_layer.contrast_limits = self.color_range(role)
                self._reveal(existing_layer, role)
                self._layers.apply_visibility()
            else:
                layer = Image(
                    data,
                    name=role,
                    colormap=MAP_COLORMAPS[role],
                    blending="translucent_no_depth",
                    contrast_limits=self.color_range(role),
                    **self._layers.build_settings(case, role),
                )
                self._layers.insert(layer)
                self._layers.track_visibility(layer)
            if case is not None:
                self._name_layer(role, case)

    def _name_layer(self, role: str, case: ActiveCase) -> None:
        """Tell in napari's list of layers if a prediction is not finished."""
        layer = self._layers.find_layer(role)
        if layer is not None and role in PREDICTION_ROLES:
            stage = describe_stage(case).lower()
            layer.name = f"{role} ({stage})" if stage else role

    def _remove(self, layer: Layer, role: str) -> None:
        self._opacity_before_hiding.pop(role, None)
        self._layers.viewer.layers.remove(layer)

    def _reveal(self, layer: Layer, role: str) -> None:
        if role in self._opacity_before_hiding:
            layer.opacity = self._opacity_before_hiding.pop(role)

    def color_range(self, role: str) -> tuple[float, float]:
        """Range of values that the colors of a map show.

        It starts at the threshold, or above where much of the scan is uncertain; see
        ``MAX_TINTED_FRACTION``.
        """
        case = self._session.case
        minimum = case.display_thresholds.get(role, 0.0) if case else 0.0
        return choose_color_range(self.threshold, minimum)
