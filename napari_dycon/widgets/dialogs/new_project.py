"""Dialog that creates a project."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.application.task_runner import InlineTaskRunner, TaskRunner
from napari_dycon.core.text import escape_control_characters
from napari_dycon.errors import UserError
from napari_dycon.project.importing.discovery import find_labels
from napari_dycon.project.importing.import_plan import plan_import
from napari_dycon.project.importing.layouts.registry import detect_layout
from napari_dycon.widgets.window.helpers import make_hint_label

PREVIEW_DELAY_MS = 300  # after the last change
GENERIC_NAMES = {"images", "imagestr", "image", "scans", "data", "nifti", "dicom", "volumes"}


class NewProjectDialog(QDialog):
    """Folders of scans, labels and the project itself, and the names of the structures."""

    def __init__(
        self, parent: QWidget, images: Path | None = None, task_runner: TaskRunner | None = None
    ) -> None:
        super().__init__(parent)
        self._task_runner = task_runner or InlineTaskRunner()
        self._preview_number = 0  # of the newest request, to drop the answers to older ones
        self.setWindowTitle("New project")
        self.setMinimumWidth(480)
        self.images, self.labels, self.target = QLineEdit(), QLineEdit(), QLineEdit()
        self.classes, self.channels = QLineEdit(), QLineEdit()
        self.labels.setPlaceholderText("optional folder")
        self.labels.setToolTip("Label files with the same names as the scans")
        self.classes.setPlaceholderText("optional, e.g. liver, tumor")
        self.channels.setPlaceholderText("optional, e.g. t1, flair")
        self.channels.setToolTip("Names of the channels, if each patient has a folder")
        self._assign_checkbox = QCheckBox("Assign files to channels manually")
        self._assign_checkbox.setToolTip(
            "For files whose names do not identify the channel, or that are in other folders"
        )
        self.target.setPlaceholderText("new folder")
        form = QFormLayout()
        form.addRow("Scans", self._make_folder_row(self.images))
        form.addRow("Labels", self._make_folder_row(self.labels))
        form.addRow("Structures", self.classes)
        form.addRow("Channels", self.channels)
        form.addRow("", self._assign_checkbox)
        form.addRow("Project", self._make_folder_row(self.target))
        self.found_label = make_hint_label(" ")
        self.found_label.setMinimumHeight(2 * self.fontMetrics().lineSpacing())
        form.addRow("Found", self.found_label)
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(
            make_hint_label(
                "Scans can be NIfTI, NRRD or MetaImage files, or DICOM series in folders. They "
                "are neither moved nor changed. The project folder stores your labels, training "
                "runs and predictions."
            )
        )
        layout.addLayout(form)
        layout.addWidget(self.buttons)
        for field in (self.images, self.target, self.channels):
            field.textChanged.connect(self._update_state)
        self._preview_timer = QTimer(self)
        self._preview_timer.setSingleShot(True)
        self._preview_timer.setInterval(PREVIEW_DELAY_MS)
        self._preview_timer.timeout.connect(self._preview)
        for field in (self.images, self.labels, self.channels):
            field.textChanged.connect(lambda _: self._preview_timer.start())
        self.finished.connect(self._stop_preview)
        if images is not None:
            self.images.setText(str(images))
            self.target.setText(str(suggest_project_folder(images)))
        self._update_state()

    def get_answers(self) -> tuple[Path, Path, Path | None, list[str] | None, list[str] | None]:
        """Project, scans, labels, classes, channels, as ``Session.create_project`` takes them."""
        labels = self.labels.text().strip()
        return (
            Path(self.target.text().strip()),
            Path(self.images.text().strip()),
            Path(labels) if labels else None,
            _split_names(self.classes),
            _split_names(self.channels),
        )

    @property
    def should_assign_channels(self) -> bool:
        """Whether the user wants to assign files to channels."""
        return bool(self._assign_checkbox.isEnabled() and self._assign_checkbox.isChecked())

    def _make_folder_row(self, field: QLineEdit) -> QWidget:
        browse = QPushButton("Browse…")

        def choose() -> None:
            chosen = QFileDialog.getExistingDirectory(self, "Choose a folder", field.text())
            if chosen:
                field.setText(chosen)
                if field is self.images and not self.target.text():
                    self.target.setText(str(suggest_project_folder(Path(chosen))))

        browse.clicked.connect(lambda _checked=False: choose())
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(field, 1)
        layout.addWidget(browse)
        return row

    def _preview(self) -> None:
        """Look in the background for what the chosen folders contain."""
        _, images, labels, _, channels = self.get_answers()
        self._preview_number += 1
        number = self._preview_number
        if not self.images.text().strip():
            self.found_label.setText(" ")
            return
        self.found_label.setText("Looking for scans…")

        def show(text: str) -> None:
            if number == self._preview_number:
                self.found_label.setText(escape_control_characters(text))

        self._task_runner.submit(
            lambda: describe_folders(images, labels, channels),
            show,
            lambda error: show(str(error)),
        )

    def _stop_preview(self) -> None:
        self._preview_timer.stop()
        self._preview_number += 1  # an answer that arrives later finds no label

    def _update_state(self) -> None:
        ready = bool(self.images.text().strip() and self.target.text().strip())
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(ready)
        self._assign_checkbox.setEnabled(len(_split_names(self.channels) or []) > 1)


def suggest_project_folder(images: Path) -> Path:
    """Suggest a folder for a project, named after the folder of its scans.

    Folders like "images" are in every dataset: the name of the folder above says more.
    """
    name = images.name
    if name.lower() in GENERIC_NAMES and images.parent.name:
        name = images.parent.name
    return images.parent / f"{name}-dycon"


def describe_folders(images: Path, labels: Path | None, channels: list[str] | None) -> str:
    """Describe the scans and labels that a project of these folders would have.

    No scan is read. What is wrong with a folder is described as well.
    """
    if not images.is_dir():
        return f"{images} is not a folder."
    try:
        layout = detect_layout(images) if labels is None else None
        plan = plan_import(images, channels=channels, on_skip=lambda _: None)
        n_labels = len(find_labels(labels)) if labels is not None else len(plan.labels)
    except UserError as error:
        return str(error)
    text = f"{_count(len(plan.scans), 'case')}, "
    text += f"{_count(len(plan.channels), 'channel')} ({', '.join(plan.channels)}), "
    text += _count(n_labels, "label")
    if layout is None:
        return text
    names = ", ".join(info.name for info in plan.classes)
    return f"Dataset {layout.name}: {text}. Structures: {names}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _split_names(field: QLineEdit) -> list[str] | None:
    return [name.strip() for name in field.text().split(",") if name.strip()] or None
