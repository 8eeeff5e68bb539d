"""Review: prediction and heat map over the scan, the uncertain places, accept."""

from __future__ import annotations

from functools import partial
from typing import Any

from qtpy.QtWidgets import QCheckBox, QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.active_learning import Suggestion
from napari_dycon.errors import UserError
from napari_dycon.session import Session
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.review.comparison_table import ComparisonTable
from napari_dycon.widgets.window.helpers import (
    button,
    guarded,
    hint,
    plain_label,
    set_enabled,
    slider,
)

ROLE_TEXTS = {
    "label": ("Label", "What people drew"),
    "prediction": ("Prediction", "What the network suggests"),
    "uncertainty": ("Uncertainty", "Entropy of the prediction: where the network is unsure"),
    "disagreement": ("Disagreement", "Where student and teacher network differ"),
    "difference": (
        "Difference",
        "Where label and prediction part: green is added by the prediction, red missed by it, "
        "yellow another structure",
    ),
}


class ReviewSection(QWidget):
    """Toggles and opacities of the overlays, navigation, accept."""

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.source = plain_label()
        grid = QGridLayout()
        self.toggles: dict[str, QCheckBox] = {}
        for row, (role, (text, tip)) in enumerate(ROLE_TEXTS.items()):
            box = QCheckBox(text)
            box.setToolTip(tip)
            box.setChecked(layers.visible[role])
            box.toggled.connect(partial(layers.set_visible, role))
            self.toggles[role] = box
            grid.addWidget(box, row, 0)
            opacity = slider(
                layers.opacity[role],
                f"Opacity of the {text.lower()}",
                partial(layers.set_opacity, role),
            )
            grid.addWidget(opacity, row, 1)
        grid.addWidget(QLabel("Show above"), len(ROLE_TEXTS), 0)
        grid.addWidget(
            slider(
                layers.overlays.threshold,
                "The heat maps show only what is more uncertain than this",
                layers.overlays.set_threshold,
            ),
            len(ROLE_TEXTS),
            1,
        )
        self.predict_button = button(
            "Predict this case",
            "Predict the shown case with the newest weights",
            guarded(session, self._predict_one),
        )
        self.predict_all_button = button(
            "Predict all unlabeled",
            "Predict every case that nobody labeled yet",
            guarded(session, self._predict_all),
        )
        self.places = QLabel("")
        self.before_button = button(
            "◀", "The uncertain place before (Shift+N)", guarded(session, self.previous_place)
        )
        self.before_button.setMaximumWidth(34)
        self.next_place_button = button(
            "Next uncertain place",
            "Go to the next place of this case where the network is unsure (key N)",
            guarded(session, self.next_place),
        )
        self.next_case_button = button(
            "Next case",
            "Show the unlabeled case most worth labeling next (key J)",
            guarded(session, self.next_case),
        )
        self.accept_button = button(
            "Accept whole case",
            "Make the prediction the label of this case; Ctrl+Z on the label takes it back",
            guarded(session, self.accept),
        )
        self.accept_class = button(
            "… structure",
            "Accept the structure that is chosen under Annotate, in the whole scan",
            guarded(session, lambda: self.accept(classes=[layers.brush])),
        )
        self.accept_slice = button(
            "… this slice",
            "Accept the prediction in the slice in view",
            guarded(session, self.accept_this_slice),
        )
        self.accept_piece = button(
            "… one piece",
            "Click a predicted piece in the scan: all of it becomes part of the label",
            guarded(session, self._accept_next_click),
        )
        self.accept_brush = button(
            "… by brush",
            "Paint over what is right: the brush takes the prediction over into the label",
            guarded(session, self._accept_by_brush),
        )
        layers.eye_clicked.connect(self._eye_clicked)
        self.table = ComparisonTable(session)
        layout = QVBoxLayout(self)
        layout.addWidget(self.source)
        layout.addLayout(grid)
        layout.addWidget(self.table)
        for buttons in (
            (self.predict_button, self.predict_all_button),
            (self.before_button, self.next_place_button, self.next_case_button),
            (self.places,),
            (self.accept_button, self.accept_class),
            (self.accept_slice, self.accept_piece, self.accept_brush),
        ):
            line = QHBoxLayout()
            for item in buttons:
                line.addWidget(item)
            layout.addLayout(line)
        layout.addWidget(
            hint("Go to the uncertain places, accept, correct with the brush, then train again.")
        )
        layout.addStretch(1)
        for signal in (
            session.project_changed,
            session.cases_changed,
            session.case_shown,
            session.prediction_changed,
            session.runs_changed,
            session.hotspot_visited,
        ):
            signal.connect(self._refresh)
        self._refresh()

    def _refresh(self, *_: object) -> None:
        project, view = self.session.project, self.session.case
        weights = bool(project and any(run.has_weights for run in project.runs()))
        no_view = "" if view else "choose a case in the list first"
        no_weights = "" if weights else "train first"
        if project and project.read_only_reason:
            no_weights = project.read_only_reason
        no_prediction = (
            "" if view and view.prediction is not None else "this case has no prediction"
        )
        set_enabled(self.predict_button, no_view or no_weights)
        set_enabled(self.predict_all_button, no_weights)
        set_enabled(self.next_case_button, "" if project else "open a project first")
        for item in (self.before_button, self.next_place_button):
            set_enabled(item, no_view or no_prediction)
        for item in (
            self.accept_button,
            self.accept_class,
            self.accept_slice,
            self.accept_piece,
            self.accept_brush,
        ):
            set_enabled(item, self.session.edit_blocked_reason() or no_prediction)
        number, count, seen = self.session.review.hotspot_progress()
        places = f"{count} uncertain place{'s' if count > 1 else ''}"
        where = f"Place {number} of {count}" if number else places
        self.places.setText(f"{where}, {seen} seen" if count else "")
        self.source.setText(self._describe(view))

    def _describe(self, view: ActiveCase | None) -> str:
        if view is None:
            return "No case is shown."
        if view.prediction is None:
            return f"{view.id} has no prediction yet."
        return f"Prediction of run {view.run} for {view.id}."

    def _predict_one(self) -> None:
        if self.session.case is not None:
            self.session.predict([self.session.case.id])

    def _predict_all(self) -> None:
        if self.session.project is not None:
            self.session.predict([case.id for case in self.session.project.unlabeled_cases()])

    def _eye_clicked(self, role: str, shown: bool) -> None:
        if role in self.toggles:
            self.toggles[role].setChecked(shown)

    def toggle(self, role: str) -> None:
        """Show or hide one kind of layer."""
        self.toggles[role].toggle()

    def next_place(self) -> None:
        """Go to the next uncertain place that was not looked at yet."""
        self._go(self.session.next_uncertain())

    def previous_place(self) -> None:
        """Go back to the uncertain place before."""
        self._go(self.session.previous_uncertain())

    def _go(self, place: tuple[float, float, float] | None) -> None:
        if place is None:
            self.session.message.emit("info", "Nothing in this case is notably uncertain.")
        else:
            self.layers.center_on(place)

    def next_case(self) -> None:
        shown = self.session.case.id if self.session.case else None

        def go(found: list[Suggestion]) -> None:
            others = [suggestion for suggestion in found if suggestion.case != shown]
            if others:
                guarded(self.session, self.session.show_case)(others[0].case)
                self.session.message.emit("info", f"{others[0].case}: {others[0].reason}.")
            else:
                self.session.message.emit("info", "Every case of the training set is labeled.")

        def failed(error: Exception) -> None:
            self.session.message.emit("error", str(error))

        # Reads the maps of every unlabeled case.
        self.session.task_runner.submit(self.session.list_suggestions, go, failed)

    def accept(self, **what: Any) -> None:
        """Make the prediction, or a part of it, the label; see ``Session.accept_prediction``."""
        changed = self.session.accept_prediction(**what)
        self.session.message.emit("info", f"Prediction accepted: {changed} voxels changed.")

    def accept_this_slice(self) -> None:
        """Accept the prediction in the slice in view."""
        if self.layers.viewer.dims.ndisplay != 2:
            raise UserError("Switch to the 2D view to accept a slice.")
        self.accept(slice_=(self.layers.axis, self.layers.slice_index))

    def _accept_next_click(self) -> None:
        def clicked(voxel: tuple[int, int, int]) -> None:
            guarded(self.session, self.accept)(component=voxel)

        self.layers.on_next_click(clicked)
        self.session.message.emit("info", "Click the predicted piece to accept.")

    def _accept_by_brush(self) -> None:
        self.layers.accept_with_brush()
        self.session.message.emit(
            "info", "Paint over what is right. Choose Paint under Annotate to paint freely again."
        )
