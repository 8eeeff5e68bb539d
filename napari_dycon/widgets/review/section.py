"""The *Review* section: overlays, uncertain regions, accepting predictions."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_dycon.application.active_learning import Suggestion
from napari_dycon.application.predictions.source_text import describe_source, describe_stage
from napari_dycon.application.predictions.status import describe_incomplete_ranking
from napari_dycon.core.text import escape_control_characters
from napari_dycon.errors import UserError
from napari_dycon.session import Session
from napari_dycon.widgets.layers.case_layers import CaseLayers
from napari_dycon.widgets.review.comparison_table import ComparisonTable
from napari_dycon.widgets.review.overlay_controls import OverlayControls
from napari_dycon.widgets.review.prediction_controls import PredictionControls
from napari_dycon.widgets.window.helpers import (
    make_button,
    make_hint_label,
    report_errors,
    set_enabled,
)
from napari_dycon.widgets.window.labels import ElidedLabel

HINT = "Go to the uncertain regions, accept or correct the prediction, then train again."
TRAIN_HINT = "No prediction yet: label at least one case and train; then predict this case."
PREDICT_HINT = "No prediction of this case yet: press Predict this case."
PREVIEW_HINT = (
    "This is a preview, of networks that were still in training. Press Predict this case once the "
    "training has ended."
)
PREVIEW_TIP = (
    "While training runs, show previews of this case instead of its finished prediction, which is "
    "kept and shown again afterwards"
)
VALIDATION_HINT = (
    "Validation case: label it by hand. A label made from predictions is no independent reference."
)


class ReviewSection(QWidget):
    """Toggles and opacities of overlays, navigation, and accept buttons."""

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self._newest_run: str | None = None  # that can predict
        self.source_label = ElidedLabel()  # of one line, so that no button moves
        self.preview_checkbox = QCheckBox("Show preview")
        self.preview_checkbox.setProperty("dycon_tip", PREVIEW_TIP)
        self.preview_checkbox.toggled.connect(session.run_controller.show_previews)
        self.overlay_controls = OverlayControls(session, layers)
        self.toggles = self.overlay_controls.toggles
        self.table = ComparisonTable(session)
        self.prediction_controls = PredictionControls(session)
        self._build_navigation()
        self._build_accept_buttons()
        self._lay_out()
        for signal in (
            session.project_changed,
            session.cases_changed,
            session.case_shown,
            session.prediction_changed,
            session.runs_changed,
            session.hotspot_visited,
            session.state.hotspots_changed,
        ):
            signal.connect(self._refresh)
        session.review.predictions.status_changed.connect(self._update_source)
        session.run_changed.connect(self._update_source)
        self._refresh()

    def _build_navigation(self) -> None:
        self.hotspot_label = QLabel("")
        self.previous_region_button = make_button(
            "◀",
            "Previous uncertain region (Shift+N)",
            report_errors(self.session, self.previous_uncertain_region),
        )
        self.previous_region_button.setMaximumWidth(34)
        self.previous_region_button.setAccessibleName("Previous uncertain region")
        self.next_region_button = make_button(
            "Next uncertain region",
            "Go to the next region of this case where the network is uncertain (N)",
            report_errors(self.session, self.next_uncertain_region),
        )
        self.next_case_button = make_button(
            "Next case",
            "Show the unlabeled case with the highest priority (J)",
            report_errors(self.session, self.next_case),
        )

    def _build_accept_buttons(self) -> None:
        self.accept_button = make_button(
            "All",
            "Replace the label of this case with the prediction; Ctrl+Z undoes it",
            report_errors(self.session, self.accept_prediction),
        )
        self.accept_structure_button = make_button(
            "Structure",
            "Accept the structure selected under Annotate in the whole scan",
            report_errors(
                self.session, lambda: self.accept_prediction(classes=[self.layers.brush_value])
            ),
        )
        self.accept_slice_button = make_button(
            "Slice",
            "Accept the prediction in the current slice",
            report_errors(self.session, self.accept_slice),
        )
        self.accept_component_button = make_button(
            "Component",
            "Click a predicted component in the scan to add all of it to the label",
            report_errors(self.session, self._accept_on_next_click),
        )
        self.accept_brush_button = make_button(
            "Brush",
            "Copy the prediction to the label wherever you paint",
            report_errors(self.session, self._accept_with_brush),
        )

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.addWidget(self.prediction_controls)
        source = QHBoxLayout()
        source.addWidget(self.source_label, 1)
        source.addWidget(self.preview_checkbox)
        layout.addLayout(source)
        # Above the overlays, so that they are visible on a small screen.
        for buttons in (
            (self.previous_region_button, self.next_region_button, self.next_case_button),
            (self.hotspot_label,),
            (
                QLabel("Accept"),
                self.accept_button,
                self.accept_structure_button,
                self.accept_slice_button,
            ),
            (self.accept_component_button, self.accept_brush_button),
        ):
            line = QHBoxLayout()
            for item in buttons:
                line.addWidget(item)
            layout.addLayout(line)
        layout.addWidget(self.overlay_controls)
        layout.addWidget(self.table)
        self.hint_label = make_hint_label(HINT)
        layout.addWidget(self.hint_label)
        layout.addStretch(1)

    def _refresh(self, *_: object) -> None:
        project, case = self.session.project, self.session.case
        usable = [run.id for run in project.runs.list() if run.has_weights] if project else []
        usable = [run for run in usable if run != self.session.status.run]  # not trained yet
        self._newest_run = usable[-1] if usable else None
        no_view = "" if case else "select a case in the list first"
        no_prediction = ""
        if case is None or case.prediction is None:
            is_pending = case is not None and case.is_prediction_pending
            no_prediction = (
                "the prediction is still being read"
                if is_pending
                else "this case has no prediction"
            )
        set_enabled(self.next_case_button, "" if project else "open a project first")
        is_validation = any(
            case is not None and one.id == case.id and one.split == "validation"
            for one in (project.cases if project is not None else ())
        )
        self.hint_label.setText(VALIDATION_HINT if is_validation else self._choose_hint())
        for item in (self.previous_region_button, self.next_region_button):
            set_enabled(item, no_view or no_prediction)
        for item in (
            self.accept_button,
            self.accept_structure_button,
            self.accept_slice_button,
            self.accept_component_button,
            self.accept_brush_button,
        ):
            set_enabled(item, self.session.edit_blocked_reason() or no_prediction)
        self.hotspot_label.setText(self.session.review.describe_hotspots())
        self._update_source()

    def _choose_hint(self) -> str:
        """Say what the next step is for the active case."""
        case = self.session.case
        if case is None or case.is_prediction_pending:
            return ""
        if case.prediction is None:
            return PREDICT_HINT if self._newest_run else TRAIN_HINT
        return PREVIEW_HINT if case.is_preview else HINT

    def _update_source(self, *_: object) -> None:
        session, runs = self.session, self.session.run_controller
        text = describe_source(
            session.case,
            session.review.predictions.status,
            training=session.status.run,
            newest=self._newest_run,
        )
        self.source_label.set_text(text)
        with signals_blocked(self.preview_checkbox):
            self.preview_checkbox.setChecked(session.review.preview_of is not None)
        self.preview_checkbox.setVisible(session.status.phase != "idle")
        set_enabled(self.preview_checkbox, runs.find_preview_blocked_reason())

    def toggle_layer(self, role: str) -> None:
        """Show or hide one kind of layer."""
        self.toggles[role].toggle()

    def next_uncertain_region(self) -> None:
        """Go to the next uncertain region that has not been viewed."""
        self._show_hotspot(self.session.next_uncertain())

    def previous_uncertain_region(self) -> None:
        """Go back to the previous uncertain region."""
        self._show_hotspot(self.session.previous_uncertain())

    def _show_hotspot(self, position_mm: tuple[float, float, float] | None) -> None:
        if position_mm is None:
            case = self.session.case
            low = case.hotspot_threshold if case is not None else 0.0
            self.session.message.emit("info", f"No uncertain regions above {low:.2f} in this case.")
        else:
            self.layers.center_on(position_mm)

    def next_case(self) -> None:
        """Show the case that is most useful to label next."""
        session, project = self.session, self.session.require_project()
        active_id = session.case.id if session.case else None
        request = session.case_service.request_number

        def show_best(suggestions: list[Suggestion]) -> None:
            is_outdated = request != session.case_service.request_number
            if is_outdated or session.project is not project:
                return  # the user chose another case or project meanwhile
            candidates = [suggestion for suggestion in suggestions if suggestion.case != active_id]
            if candidates:
                session.show_case(candidates[0].case)
                name = project.get_case(candidates[0].case).display_name
                reason = f"{name}: {candidates[0].reason}."
                note = describe_incomplete_ranking(session.review.predictions.status)
                session.message.emit("info", f"{reason} {note}".strip())
            else:
                session.message.emit("info", "All training cases are labeled.")

        # Reads the maps of every unlabeled case.
        session.task_runner.submit(
            session.list_suggestions, report_errors(session, show_best), session.report_error
        )

    def accept_prediction(self, **selection: Any) -> None:
        """Accept the prediction or a part of it; see ``Session.accept_prediction``."""
        what = describe_stage(self.session.case) or "Prediction"
        n_changed = self.session.accept_prediction(**selection)
        if not n_changed:
            text = "Nothing changed: the label is already like the prediction here."
            self.session.message.emit("info", text)
            return
        text = f"{what} accepted {self._describe_selection(selection)}"
        last = self.session.review.acceptance.last
        if last is not None and last.is_whole:
            text += "; scan marked complete" + (", no longer reviewed" if last.was_reviewed else "")
        self.session.state.undo_offered.emit(f"{text}.", self.undo_acceptance)

    def undo_acceptance(self) -> None:
        """Take back the last acceptance, unless the label was edited since then."""
        label = self.layers.find_layer("label")
        if label is None or not self.session.review.acceptance.can_undo():
            self.session.message.emit(
                "warning", "The label was changed since. Press Ctrl+Z to undo step by step."
            )
            return
        label.undo()
        self.session.save_label()
        self.session.message.emit("info", "Undone: the label is as before.")

    def _describe_selection(self, selection: dict[str, Any]) -> str:
        """Describe what was accepted; the volumes are beside the names of the structures."""
        if "slice_" in selection:
            return f"in slice {selection['slice_'][1] + 1}"
        if "component" in selection:
            return "in this component"
        if "classes" in selection:
            names = [c.name for c in self.layers.classes() if c.value in selection["classes"]]
            return f"for {' and '.join(map(escape_control_characters, names))}"
        return "for the whole scan"

    def accept_slice(self) -> None:
        """Accept the prediction in the current slice."""
        if self.layers.viewer.dims.ndisplay != 2:
            raise UserError("Switch to the 2D view to accept a slice.")
        self.accept_prediction(slice_=(self.layers.axis, self.layers.slice_index))

    def _accept_on_next_click(self) -> None:
        if self.layers.viewer.dims.ndisplay != 2:
            raise UserError("Switch to the 2D view to accept a component.")

        def on_click(voxel: tuple[int, int, int]) -> None:
            report_errors(self.session, self.accept_prediction)(component=voxel)

        self.layers.call_on_next_click(on_click)
        self.session.message.emit("info", "Click the predicted component to accept.")

    def _accept_with_brush(self) -> None:
        if self.layers.viewer.dims.ndisplay != 2:
            raise UserError("Switch to the 2D view to accept by brush.")
        self.layers.accept_with_brush()
        self.session.message.emit(
            "info",
            "Paint to copy the prediction to the label. Press Paint under Annotate to "
            "paint normally again.",
        )
