"""The *Train* section: settings, controls, progress and curves of a run."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.application.activities import Activities
from napari_dycon.application.training.status import RunStatus, describe_dice
from napari_dycon.core.durations import format_elapsed
from napari_dycon.core.text import escape_rich_text
from napari_dycon.core.wording import METHOD_NAMES
from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.presets import describe_preset, list_presets
from napari_dycon.project.case_counts import count_cases
from napari_dycon.project.runs.events import (
    Event,
    FailedEvent,
    FinishedEvent,
    StartedEvent,
    StoppedEvent,
    ValidationEvent,
)
from napari_dycon.project.store import Project
from napari_dycon.session import Session
from napari_dycon.widgets.train.curves import (
    NEXT_TRAINING_TEXT,
    NO_VALIDATION_TEXT,
    TOO_FEW_LABELS_TEXT,
    LearningCurves,
)
from napari_dycon.widgets.train.history import TrainingHistory
from napari_dycon.widgets.window.folding import make_collapsible
from napari_dycon.widgets.window.helpers import (
    make_button,
    report_errors,
    set_enabled,
)
from napari_dycon.widgets.window.labels import ReservedLabel
from napari_dycon.widgets.window.preferences import get_preferences

METHOD_TEXTS = {
    **{method: f"{name[0].upper()}{name[1:]}" for method, name in METHOD_NAMES.items()},
    "dycon": "DyCON (semi-supervised)",
    "supervised": "Supervised only",
}
STATUS_LINES, DEVICE_LINES = 2, 2  # reserved
TIME_NOTE = (
    "The minutes include preparation and validation, not the predictions afterwards, which take "
    "extra time."
)
DEVICE_TEXTS = {
    "auto": "Automatic",
    "cuda": "NVIDIA GPU (CUDA)",
    "mps": "Apple GPU (MPS)",
    "cpu": "CPU",
}


class TrainSection(QWidget):
    """Settings, buttons, progress and curves of a training run."""

    def __init__(self, session: Session, activities: Activities) -> None:
        super().__init__()
        self.session = session
        self._activities = activities
        self._phase = session.status.phase
        self._build_settings()
        self._build_buttons()
        self._n_validation = 0  # of the run whose outcome is shown
        self.status_label = ReservedLabel(STATUS_LINES)
        self.device_label = ReservedLabel(DEVICE_LINES)
        self.curves = LearningCurves()
        self.history = TrainingHistory(session)
        self._lay_out()
        session.project_changed.connect(self._on_project_changed)
        session.cases_changed.connect(self._refresh)
        session.runs_changed.connect(self._refresh)
        session.run_changed.connect(self._on_run_changed)
        session.state.run_event.connect(self._on_event)
        activities.changed.connect(self._show_stop_button)
        self._refresh()

    def _build_settings(self) -> None:
        self.method = self._make_combo_box(
            METHOD_TEXTS,
            "All methods except the last also use unlabeled scans.\nDyCON is the default; the "
            "others are provided for comparison",
        )
        self.preset = self._make_combo_box({n: n for n in list_presets()}, "Training settings")
        for index, name in enumerate(list_presets()):
            self.preset.setItemData(index, describe_preset(name), Qt.ItemDataRole.ToolTipRole)
        self.preset.setCurrentText("default")
        self.device = self._make_combo_box(
            DEVICE_TEXTS, "Device to train on; Automatic uses a GPU if available"
        )
        self.minutes = _make_minutes_box()
        for field, name in (
            (self.method, "Method"),
            (self.preset, "Preset"),
            (self.device, "Device"),
            (self.minutes, "Training time in minutes"),
        ):
            field.setAccessibleName(name)
        self.init_checkbox = QCheckBox("Initialize from previous run")
        self.init_checkbox.setToolTip(
            "Start from the weights of the previous run instead of from scratch"
        )

        self.preview_checkbox = QCheckBox("Preview")
        self.preview_checkbox.setToolTip(
            "Predict the case in view from time to time while training runs. Training is faster "
            "without it"
        )
        self.preview_checkbox.setChecked(True)

    def _build_buttons(self) -> None:
        session = self.session
        self.start_button = make_button(
            "Train",
            "Train in the background while you keep working",
            report_errors(session, self.start),
        )
        # The row below the tabs pauses and stops, unless it shows another task.
        self.stop_button = make_button(
            "Stop training",
            "Stop training and save the model",
            report_errors(session, session.stop),
        )

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("Method", self.method)
        preset_row = QHBoxLayout()  # two to a row: a laptop's screen has little height
        preset_row.addWidget(self.preset, 1)
        preset_row.addWidget(self.minutes)
        form.addRow("Preset", preset_row)
        device_row = QHBoxLayout()
        device_row.addWidget(self.device, 1)
        device_row.addWidget(self.preview_checkbox)
        form.addRow("Device", device_row)
        buttons = QHBoxLayout()
        for item in (self.start_button, self.stop_button):
            buttons.addWidget(item)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.init_checkbox)
        layout.addLayout(buttons)
        layout.addWidget(self.status_label)
        layout.addWidget(self.device_label)
        layout.addWidget(self.curves)
        layout.addWidget(make_collapsible("Training history", self.history))
        layout.addStretch(1)

    def build_config(self) -> TrainConfig:
        """Build the configuration from the settings of the panel."""
        init_from = self._find_last_run() if self.init_checkbox.isChecked() else None
        return make_config(
            self.method.currentData(),
            self.preset.currentData(),
            device=self.device.currentData(),
            time_limit=60.0 * self.minutes.value(),
            init_from=init_from,
            preview=self.preview_checkbox.isChecked(),
        )

    def set_minutes(self, minutes: int) -> None:
        """Set the time of the next round; while one runs, its own time stays."""
        if self.session.status.phase == "idle":
            self.minutes.setValue(minutes)

    def start(self) -> None:
        """Start a run with the settings of the panel."""
        self.curves.clear()
        self.status_label.setText("")
        self.session.start_training(self.build_config())

    def _explain_dice(self) -> None:
        """Say what to do if there is no Dice to show."""
        project = self.session.project
        is_running = self._phase not in ("idle", "starting")
        if project is None or (is_running and self._n_validation):
            reason = ""
        elif is_running or not project.has_labeled_cases("validation"):
            # The only labeled case is needed for training.
            counts = count_cases(project.cases)
            has_several = counts.labeled + counts.in_progress > 1
            reason = NO_VALIDATION_TEXT if has_several else TOO_FEW_LABELS_TEXT
        else:
            reason = NEXT_TRAINING_TEXT if self._phase == "idle" else ""
        self.curves.explain_dice(reason)

    def _show_details(self, status: RunStatus) -> None:
        """Show numbers for researchers where they do not distract clinicians."""
        run = f"Run {status.run}" if status.run else ""
        tip = "\n".join(text for text in (run, status.details) if text)
        self.status_label.setToolTip(escape_rich_text(tip))
        self.device_label.setToolTip(escape_rich_text(status.device_details))

    def _make_combo_box(self, texts: dict[str, str], tip: str) -> QComboBox:
        combo_box = QComboBox()
        combo_box.setToolTip(tip)
        # Long entries must not widen the panel.
        combo_box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        combo_box.setMinimumContentsLength(6)
        for value, text in texts.items():
            combo_box.addItem(text, value)
        return combo_box

    def _find_last_run(self) -> str | None:
        project = self.session.project
        usable = [run.id for run in project.runs.list() if run.has_weights] if project else []
        return usable[-1] if usable else None

    def _on_project_changed(self, project: Project | None) -> None:
        """Show the outcome of the newest run, unless a run is active."""
        self.curves.clear()
        self.status_label.setText("")
        self.device_label.setText("")
        self._refresh()
        runs = project.runs.list() if project is not None else []
        if not runs:
            return
        last_run = runs[-1]

        def show_history(events: list[Event]) -> None:
            if self.session.project is project and self.session.status.phase == "idle":
                self.curves.add_events(events)
                self._explain_dice()
                starts = [event for event in events if isinstance(event, StartedEvent)]
                self._n_validation = starts[-1].validation if starts else 0
                for event in events[-1:]:
                    self._show_outcome(event)
                self.init_checkbox.setChecked(False)
                if self.status_label.text():
                    self.status_label.setText(f"Run {last_run.id}: {self.status_label.text()}")

        self.session.task_runner.submit(last_run.read_history, show_history, lambda _: None)

    def _on_run_changed(self, status: RunStatus) -> None:
        # Most changes are training steps; only a change of phase needs reading from disk.
        if status.phase != self._phase:
            self._phase = status.phase
            self._refresh()
        elif status.phase != "idle":
            self._show_status(status)

    def _refresh(self, *_: object) -> None:
        project, status = self.session.project, self.session.status
        is_idle = status.phase == "idle"
        start_blocked_reason = ""
        if project is None:
            start_blocked_reason = "open a project first"
        elif project.read_only_reason:
            start_blocked_reason = project.read_only_reason or ""
        elif not is_idle:
            start_blocked_reason = f"run {status.run} is running"
        elif not project.has_labeled_cases():
            has_validation = project.has_labeled_cases("validation")
            start_blocked_reason = (
                "all labeled cases are used for validation only: right-click one to train on it"
                if has_validation
                else "no case is labeled yet"
            )
        set_enabled(self.start_button, start_blocked_reason)
        stop_blocked_reason = project.read_only_reason if project else ""
        if status.phase == "stopping":
            stop_blocked_reason = "training is stopping"
        set_enabled(self.stop_button, stop_blocked_reason)
        self.init_checkbox.setEnabled(self._find_last_run() is not None and is_idle)
        self.curves.set_state(
            is_training=not is_idle, has_runs=project is not None and bool(project.runs.list())
        )
        for item in (self.method, self.preset, self.device, self.minutes, self.preview_checkbox):
            item.setEnabled(is_idle)
        self._show_stop_button()
        self._explain_dice()
        if not is_idle:
            self._show_status(status)
        else:
            self.device_label.setText(TIME_NOTE if project is not None else "")
            self.device_label.setToolTip("")

    def _show_stop_button(self) -> None:
        is_row_taken = bool(self._activities.running)
        self.stop_button.setVisible(self._phase != "idle" and is_row_taken)

    def _show_status(self, status: RunStatus) -> None:
        self.status_label.setText("\n".join(t for t in (status.summary, status.score) if t))
        self.device_label.setText(status.device)
        self._show_details(status)

    def _on_event(self, event: Event) -> None:
        self.curves.add_event(event)
        if isinstance(event, StartedEvent):  # show the settings of runs started elsewhere, too
            self._n_validation = event.validation
            for combo_box, value in ((self.method, event.method), (self.preset, event.preset)):
                if (index := combo_box.findData(value)) >= 0:
                    combo_box.setCurrentIndex(index)
            if event.time_limit:
                self.minutes.setValue(max(1, round(event.time_limit / 60)))
        if isinstance(event, (StartedEvent, ValidationEvent)):
            self._explain_dice()
        self._show_outcome(event)

    def _show_outcome(self, event: Event) -> None:
        if isinstance(event, (FinishedEvent, StoppedEvent)):
            text = (
                f"{event.event.capitalize()} after {format_elapsed(event.elapsed_s)}, "
                f"{event.step} steps."
            )
            if event.dice is not None:
                text += f"\n{describe_dice(event.dice, self._n_validation)}"
            self.status_label.setText(text)
            self.init_checkbox.setChecked(True)
        elif isinstance(event, FailedEvent):
            self.status_label.setText(event.message)
        else:
            return
        self.status_label.setToolTip("")


def _make_minutes_box() -> QSpinBox:
    minutes = QSpinBox()
    minutes.setRange(1, 10_000)
    minutes.setValue(int(get_preferences().train.minutes))
    minutes.setSuffix(" min")
    arrow_width_px = 60  # width that napari's theme adds
    minutes.setMinimumWidth(minutes.fontMetrics().horizontalAdvance("1000 min") + arrow_width_px)
    minutes.setToolTip(
        "Maximum training time, with preparation and validation but without predictions "
        "afterwards.\nYou can stop earlier and keep the model"
    )
    return minutes
