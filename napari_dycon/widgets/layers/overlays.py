"""What lies between scan and label, only to look at: prediction, maps, difference, proposal.

Difference and proposal come and go all the time, and napari takes a tenth of a second for a layer
that comes or goes: theirs are kept once they were needed, and hidden while there is nothing to
show.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels, Layer

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.engine.evaluation.label_comparison import difference_map
from napari_dycon.widgets.layers.colormaps import COOL, HEAT, difference_colormap, label_colormap
from napari_dycon.widgets.window.preferences import preferences

if TYPE_CHECKING:
    from napari_dycon.widgets.layers.case_layers import CaseLayers

Mask = npt.NDArray[np.uint8]
MAPS = {"uncertainty": HEAT, "disagreement": COOL}


KEPT = ("difference", "proposal")


class Overlays:
    """Overlays of the case in view; existing layers get new data, so nothing flickers."""

    def __init__(self, layers: CaseLayers) -> None:
        self._layers = layers
        self._session = layers.session
        self.threshold = float(preferences().review.show_above)  # below it maps are clear
        self._veiled: dict[str, float] = {}  # roles, and their opacity before

    def veil(self) -> None:
        """Let nothing of the case before be seen over the one in view, until ``steps`` are done."""
        for role in (*MAPS, "prediction", *KEPT):
            found = self._layers.layer(role)
            if found is None:
                self._veiled.pop(role, None)
            elif role not in self._veiled:
                self._veiled[role] = found.opacity  # perhaps chosen in napari's own controls
                found.opacity = 0.0

    def steps(self) -> list[Callable[[], None]]:
        """What shows the case in view, to be done in turns of their own."""
        return [
            self._empty,
            self._show_prediction,
            *(partial(self._show_map, role) for role in MAPS),
            self.compare,
        ]

    def refresh(self, *_: object) -> None:
        """Show the newest prediction and its maps."""
        for role in MAPS:
            self._show_map(role)
        self._show_prediction()
        self.compare()

    def _empty(self) -> None:
        """Hide what was shown of the case before, on the grid of the one in view."""
        view = self._session.case
        if view is None:
            return
        nothing = np.broadcast_to(np.uint8(0), view.label.shape)
        with self._layers.own_work():
            for role in KEPT:
                if (found := self._layers.layer(role)) is not None:
                    if found.visible:
                        found.visible = False
                    self._layers.place(found, view, role)
                    found.data = nothing  # hidden ones count for the window's sliders, too
                    self._unveil(found, role)

    def _show_prediction(self) -> None:
        if (view := self._session.case) is not None:
            self._show_labels("prediction", view.prediction)

    def set_threshold(self, threshold: float) -> None:
        """Show the heat maps only above this uncertainty."""
        self.threshold = threshold
        for role in MAPS:
            if (layer := self._layers.layer(role)) is not None:
                layer.contrast_limits = self._limits(role)

    def compare(self, *_: object) -> None:
        """Work out anew where label and prediction part, while that is shown."""
        view = self._session.case
        if view is None or view.prediction is None or not self._layers.visible["difference"]:
            self._show_labels("difference", None)
            return
        label, prediction = view.label.copy(), view.prediction

        def done(found: Mask) -> None:
            if self._session.case is view and self._layers.visible["difference"]:
                self._show_labels("difference", found)

        self._session.task_runner.submit(
            lambda: difference_map(label, prediction), done, self._session.report_error
        )

    def propose(self, proposal: Mask | None) -> None:
        """Show the outlines of what would be added, until that is decided."""
        self._show_labels("proposal", proposal)

    def _show_labels(self, role: str, data: Mask | None) -> None:
        view, found = self._session.case, self._layers.layer(role)
        with self._layers.own_work():
            if data is None or view is None:
                if found is not None and role in KEPT:
                    if found.visible:
                        found.visible = False
                elif found is not None:
                    self._remove(found, role)
            elif found is not None:
                self._layers.place(found, view, role)
                found.data = data
                self._unveil(found, role)
                self._set_visible(found, role)
            else:
                self._add_labels(role, view, data)

    def _add_labels(self, role: str, view: ActiveCase, data: Mask) -> Labels:
        different = role == "difference"
        classes = self._session.project.classes if self._session.project else []
        layer = Labels(
            data,
            name=role,
            colormap=difference_colormap() if different else label_colormap(classes, False),
            **self._layers.settings(view, role),
        )
        if role == "proposal":
            layer.contour = 2
        layer.editable = False
        self._layers.insert(layer, on_top=different)  # else the label's color hides it
        if role != "proposal":  # the next one has to be seen
            self._layers.follow_eye(layer)
        return layer

    def _show_map(self, role: str) -> None:
        view, found = self._session.case, self._layers.layer(role)
        data = None if view is None else getattr(view, role)
        with self._layers.own_work():
            if view is None or data is None:
                if found is not None:
                    self._remove(found, role)
            elif found is not None:
                self._layers.place(found, view, role)
                found.data = data
                if tuple(found.contrast_limits) != self._limits(role):
                    found.contrast_limits = self._limits(role)
                self._unveil(found, role)
                self._set_visible(found, role)
            else:
                layer = Image(
                    data,
                    name=role,
                    colormap=MAPS[role],
                    blending="translucent_no_depth",
                    contrast_limits=self._limits(role),
                    **self._layers.settings(view, role),
                )
                self._layers.insert(layer)
                self._layers.follow_eye(layer)

    def _remove(self, layer: Layer, role: str) -> None:
        self._veiled.pop(role, None)
        self._layers.viewer.layers.remove(layer)

    def _unveil(self, layer: Layer, role: str) -> None:
        if role in self._veiled:
            layer.opacity = self._veiled.pop(role)

    def _set_visible(self, layer: Layer, role: str) -> None:
        """Show a layer if people want to see it; napari draws anew even what is visible already."""
        if layer.visible != self._layers.visible[role]:
            layer.visible = self._layers.visible[role]

    def _limits(self, role: str) -> tuple[float, float]:
        """Range of colors of a map: from the threshold on, or higher (see
        ``MAX_TINTED_FRACTION``)."""
        floor = self._session.case.display_thresholds.get(role, 0.0) if self._session.case else 0.0
        low = max(self.threshold, min(floor, 0.999))
        return low, max(1.0, low + 0.01)
