"""Every tool of the window, with three views: how long it blocks the event loop."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from _event_loop_latency import LatencyMonitor, is_idle, settle, wait
from qtpy.QtWidgets import QApplication

from napari_dycon.widgets.layers.label_layer import CaseLabels

STROKE_STEPS = range(0, 40, 2)  # positions of a stroke, in voxels
FIRST_SLICE, N_SLICES = 30, 20  # that are shown in turn


def do_nothing() -> None:
    """Do nothing before or after an interaction."""


class Interaction(NamedTuple):
    """An interaction with what is done, unmeasured, before and after it."""

    name: str
    interact: Callable[[], Any]
    clean_up: Callable[[], Any] = do_nothing
    prepare: Callable[[], Any] = do_nothing


def measure_interactions(panel: Any, repeats: int, kind: str) -> list[dict[str, Any]]:
    """Measure the longest gap of the event loop during each interaction and its effects.

    Parameters
    ----------
    kind : of the typical cases, "atrium" or "large"
    """
    monitor, found = LatencyMonitor(), []
    for interaction in Tools(panel, kind).list_interactions():
        gaps = []
        for _ in range(repeats):
            interaction.prepare()
            settle(0.3)
            monitor.reset()
            interaction.interact()
            wait(lambda: is_idle(panel))
            settle(0.3)
            gaps.append(monitor.longest_ms())
            interaction.clean_up()
            wait(lambda: is_idle(panel))
        row = {"interaction": interaction.name, "median_ms": round(float(np.median(gaps)), 1)}
        found.append(row | {"worst_ms": round(max(gaps), 1)})
    return found


class Tools:
    """Interactions of a user with one of two cases."""

    def __init__(self, panel: Any, kind: str) -> None:
        self._panel = panel
        self._session, self._layers = panel.session, panel.layers
        self._views, self._review = panel.canvas_area.views, panel.review
        self._drawing = panel.session.annotation
        self._cases = (f"{kind}-0", f"{kind}-1")
        self._slices = itertools.cycle(range(FIRST_SLICE, FIRST_SLICE + N_SLICES))
        self._show(self._cases[0])
        wait(lambda: not self._session.case.is_prediction_pending)
        wait(lambda: panel.strip.profile is not None)
        settle(2.0)

    def list_interactions(self) -> list[Interaction]:
        """List the interactions in the order in which they are measured."""
        drawing, review, undo = self._drawing, self._review, self._undo
        return [
            Interaction("idle", do_nothing),
            Interaction(
                "scroll by a slice", lambda: self._layers.go_to_slice(next(self._slices), 0)
            ),
            Interaction("move the crosshair in all views", self._move_crosshair),
            Interaction("drag window and level", self._drag_window),
            Interaction("stroke of 20 positions", self._paint, undo),
            Interaction("stroke in a side view", self._paint_in_side_view, undo),
            Interaction("save the label", self._paint_and_save, undo),
            Interaction("interpolate slices", lambda: drawing.fill_between([1], 0), undo),
            Interaction(
                "interpolate slices, following edges",
                lambda: drawing.fill_between([1], 0, refine_to_edges=True),
                undo,
            ),
            Interaction(
                "grow from scribbles, to the proposal", drawing.grow, drawing.discard_proposal
            ),
            Interaction("accept the proposal", drawing.accept_proposal, undo, self._propose),
            Interaction("smooth", lambda: drawing.smooth(1, 1.0), undo),
            Interaction(
                "keep the largest component", lambda: drawing.keep_largest_component(1), undo
            ),
            Interaction("next uncertain region", review.next_uncertain_region),
            Interaction("accept a slice", review.accept_slice, undo),
            Interaction("accept the whole prediction", self._session.accept_prediction, undo),
            Interaction("show the difference", review.toggles["difference"].toggle),
            Interaction(
                "threshold of the uncertainty overlay",
                lambda: self._layers.overlays.set_threshold(0.5),
            ),
            Interaction("show another case", self._show_other_case),
        ]

    def _show(self, case: str) -> None:
        session = self._session
        session.show_case(case)
        wait(lambda: session.case is not None and session.case.id == case)

    def _show_other_case(self) -> None:
        first, second = self._cases
        self._show(second if self._session.require_case().id == first else first)
        wait(lambda: not self._session.case.is_prediction_pending)

    def _undo(self) -> None:
        self._layers.find_layer("label").undo()

    def _propose(self) -> None:
        self._drawing.grow()
        wait(lambda: self._drawing.has_proposal)

    def _move_crosshair(self) -> None:
        index = next(self._slices)
        spacing_mm = self._session.require_case().image.spacing_mm
        self._views.gestures.move_to(tuple(index * value for value in spacing_mm))

    def _drag_window(self) -> None:
        self._views.gestures.start_window_drag()
        for step in range(10):
            self._views.gestures.drag_window(0.01 * step, 0.01 * step)
            QApplication.processEvents()

    def _paint(self) -> None:
        self._paint_stroke(self._layers.find_layer("label"))

    def _paint_and_save(self) -> None:
        self._paint()
        self._session.save_label()

    def _paint_in_side_view(self) -> None:
        layers = self._views.views[1].model.layers
        self._paint_stroke(next(layer for layer in layers if isinstance(layer, CaseLabels)))

    def _paint_stroke(self, label: Any) -> None:
        z, y, x = (n // 2 for n in self._session.require_case().label.shape)
        with label.block_history():
            for shift in STROKE_STEPS:
                label.paint((z, y, x + shift), 1)
                QApplication.processEvents()
