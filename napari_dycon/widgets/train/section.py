"""Train: method, time, device; start, pause, stop; how it is going."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QProgressBar,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_dycon.application.run_status import RunStatus
from napari_dycon.engine.config import TrainConfig, describe_preset, list_presets, make_config
from napari_dycon.project.store import Project
from napari_dycon.session import Session
from napari_dycon.widgets.train.curves import Curves
from napari_dycon.widgets.train.history import Rounds
from napari_dycon.widgets.window.helpers import button, guarded, plain_label, set_enabled
from napari_dycon.widgets.window.preferences import preferences
from napari_dycon.widgets.window.task_runner import remaining_text

METHOD_TEXTS = {
    "dycon": "DyCON (semi-supervised)",
    "secl-region": "SECL by region",
    "secl-anatomical": "SECL by anatomy",
    "mean-teacher": "Mean teacher",
    "supervised": "Supervised only",
}
DEVICE_TEXTS = {
    "auto": "Automatic",
    "cuda": "NVIDIA GPU (CUDA)",
    "mps": "Apple GPU (MPS)",
    "cpu": "CPU",
}
NO_LIMIT_STEPS = 10_000_000


class TrainSection(QWidget):
    """Settings, buttons, progress and curves of a training run."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._phase = session.status.phase
        self.method = self._choice(
            METHOD_TEXTS,
            "All but the last learn from labeled and unlabeled scans;\n"
            "DyCON is the one this program is made for, the others are there to compare",
        )
        self.preset = self._choice({n: n for n in list_presets()}, "The recipe of settings")
        for index, name in enumerate(list_presets()):
            self.preset.setItemData(index, describe_preset(name), Qt.ItemDataRole.ToolTipRole)
        self.preset.setCurrentText("default")
        self.device = self._choice(DEVICE_TEXTS, "Where to compute; automatic prefers a GPU")
        self.minutes = QSpinBox()
        self.minutes.setRange(1, 10_000)
        self.minutes.setValue(int(preferences().train.minutes))
        self.minutes.setSuffix(" min")
        arrows = 60  # pixels that napari's theme gives to them
        self.minutes.setMinimumWidth(
            self.minutes.fontMetrics().horizontalAdvance("1000 min") + arrows
        )
        self.minutes.setToolTip(
            "How long to train, whatever steps the recipe speaks of; you can stop earlier and keep "
            "the result"
        )
        self.keep = QCheckBox("Start from the last weights")
        self.keep.setToolTip("Go on from what the previous run learned instead of from scratch")
        self.start_button = button(
            "Train", "Train in the background; you can go on working", guarded(session, self.start)
        )
        self.pause_button = button(
            "Pause", "Let the training wait, or go on", guarded(session, self._pause)
        )
        self.stop_button = button(
            "Stop", "End the training and keep what it learned", guarded(session, session.stop)
        )
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.status = plain_label()
        self.status.setWordWrap(True)
        self.device_used = plain_label()
        self.device_used.setWordWrap(True)
        self.curves = Curves()
        self.rounds = Rounds(session)

        form = QFormLayout()
        form.addRow("Method", self.method)
        recipe = QHBoxLayout()  # two to a row: a laptop's screen has little height
        recipe.addWidget(self.preset, 1)
        recipe.addWidget(self.minutes)
        form.addRow("Recipe", recipe)
        form.addRow("Device", self.device)
        buttons = QHBoxLayout()
        for item in (self.start_button, self.pause_button, self.stop_button):
            buttons.addWidget(item)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.keep)
        layout.addLayout(buttons)
        layout.addWidget(self.bar)
        layout.addWidget(self.status)
        layout.addWidget(self.device_used)
        layout.addWidget(self.curves, 1)
        folded = QCollapsible("Rounds so far")
        folded.layout().setContentsMargins(0, 0, 0, 0)
        folded.addWidget(self.rounds)
        layout.addWidget(folded)

        session.project_changed.connect(self._project_changed)
        session.cases_changed.connect(self._refresh)
        session.runs_changed.connect(self._refresh)
        session.run_changed.connect(self._run_changed)
        session.event.connect(self._on_event)
        self._refresh()

    def config(self) -> TrainConfig:
        """Settings as chosen in the panel."""
        last = self._last_run() if self.keep.isChecked() else None
        return make_config(
            self.method.currentData(),
            self.preset.currentData(),
            device=self.device.currentData(),
            time_limit=60.0 * self.minutes.value(),
            steps=NO_LIMIT_STEPS,
            init_from=last,
        )

    def start(self) -> None:
        """Start a run with the chosen settings."""
        self.curves.clear()
        self.status.setText("")
        self.session.start_training(self.config())

    def _choice(self, texts: dict[str, str], tip: str) -> QComboBox:
        box = QComboBox()
        box.setToolTip(tip)
        # Long entries must not widen the panel.
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(6)
        for value, text in texts.items():
            box.addItem(text, value)
        return box

    def _last_run(self) -> str | None:
        project = self.session.project
        usable = [run.id for run in project.runs() if run.has_weights] if project else []
        return usable[-1] if usable else None

    def _pause(self) -> None:
        if self.session.status.phase == "paused":
            self.session.resume()
        else:
            self.session.pause()

    def _project_changed(self, project: Project | None) -> None:
        """Show how the newest run went, unless one is at work and tells itself."""
        self.curves.clear()
        self.bar.setValue(0)
        self.status.setText("")
        self._refresh()
        runs = project.runs() if project is not None else []
        if not runs:
            return
        last = runs[-1]

        def show(found: list[dict[str, Any]]) -> None:
            if self.session.project is project and self.session.status.phase == "idle":
                self.curves.add_all(found)
                for event in found[-1:]:
                    self._show_end(event)
                self.keep.setChecked(False)
                if self.status.text():
                    self.status.setText(f"{last.id}: {self.status.text()}")

        self.session.task_runner.submit(last.read_history, show, lambda _: None)

    def _run_changed(self, status: RunStatus) -> None:
        # Most changes are a step's: only a change of phase is worth a look at the disk.
        if status.phase != self._phase:
            self._phase = status.phase
            self._refresh()
        elif status.phase != "idle":
            self._show_status(status)

    def _refresh(self, *_: object) -> None:
        project, status = self.session.project, self.session.status
        idle = status.phase == "idle"
        why = ""
        if project is None:
            why = "open a project first"
        elif project.read_only_reason:
            why = project.read_only_reason
        elif not idle:
            why = f"run {status.run} is at work"
        elif not project.has_labeled_cases():
            why = "no case is labeled yet"
        set_enabled(self.start_button, why)
        not_now = "no run is at work" if idle else project.read_only_reason if project else ""
        set_enabled(self.pause_button, not_now)
        set_enabled(self.stop_button, not_now)
        self.pause_button.setText("Resume" if status.phase == "paused" else "Pause")
        self.keep.setEnabled(self._last_run() is not None and idle)
        for item in (self.method, self.preset, self.device, self.minutes):
            item.setEnabled(idle)
        if not idle:
            self._show_status(status)

    def _show_status(self, status: RunStatus) -> None:
        self.bar.setValue(round(status.progress * 1000))
        left = ""
        if status.phase == "training" and status.remaining_s is not None:
            left = f", {remaining_text(status.remaining_s)} left"
        self.status.setText(f"{status.run}: {status.text}{left}")
        self.device_used.setText(status.device)

    def _on_event(self, event: dict[str, Any]) -> None:
        self.curves.add(event)
        kind = event.get("event")
        if kind == "started":  # perhaps by somebody else: show the settings it runs with
            for box, value in ((self.method, event["method"]), (self.preset, event.get("preset"))):
                if (index := box.findData(value)) >= 0:
                    box.setCurrentIndex(index)
            if event["time_limit"]:
                self.minutes.setValue(max(1, round(event["time_limit"] / 60)))
        self._show_end(event)

    def _show_end(self, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if kind in ("finished", "stopped"):
            self.bar.setValue(1000 if kind == "finished" else self.bar.value())
            dice = f", validation Dice {event['dice']:.3f}" if event.get("dice") else ""
            self.status.setText(
                f"{kind.capitalize()} after {remaining_text(event['elapsed'])}, "
                f"{event['step']} steps{dice}"
            )
            self.keep.setChecked(True)
        elif kind == "failed":
            self.bar.setValue(0)
            self.status.setText(str(event["message"]))
