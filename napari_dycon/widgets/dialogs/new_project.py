"""Dialog that creates a project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Qt, QTimer
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

from napari_dycon.application.task_runner import TaskRunner
from napari_dycon.core.text import escape_control_characters
from napari_dycon.errors import DyconError
from napari_dycon.project.importing.preview import (
    ImportPreview,
    preview_import,
    suggest_project_folder,
)
from napari_dycon.widgets.window.helpers import make_hint_label, make_plain_label

MIN_WIDTH_PX = 600  # so that no placeholder is cut
PREVIEW_DELAY_MS = 400  # after the last change
PREVIEW_LINES = 3  # kept free, so that nothing moves when the text changes
LOOKING_TEXT = "Looking for scans…"


class NewProjectDialog(QDialog):
    """Folders of scans, labels and the project itself, and the names of the structures.

    Parameters
    ----------
    images : folder of scans to begin with
    task_runner : looks into the folders, to show what was recognized
    """

    def __init__(
        self,
        parent: QWidget | None,
        images: Path | None = None,
        task_runner: TaskRunner | None = None,
    ) -> None:
        super().__init__(parent)
        self._preview = _BackgroundPreview(self, task_runner) if task_runner else None
        self._suggested_target = ""
        self.setWindowTitle("New project")
        self.setMinimumWidth(MIN_WIDTH_PX)
        self.images, self.labels, self.target = QLineEdit(), QLineEdit(), QLineEdit()
        self.classes, self.channels = QLineEdit(), QLineEdit()
        self.labels.setPlaceholderText("Optional; same file names as the scans")
        self.classes.setPlaceholderText("Optional; e.g. liver, tumor")
        self.channels.setPlaceholderText("Optional, if each patient has a folder; e.g. t1, flair")
        self._assign_checkbox = QCheckBox("Assign files to channels manually")
        self._assign_checkbox.setToolTip(
            "For files whose names do not identify the channel, or that are in other folders"
        )
        self.target.setPlaceholderText("New folder")
        for field, name in (
            (self.images, "Folder of scans"),
            (self.labels, "Folder of labels"),
            (self.target, "Project folder"),
        ):
            field.setAccessibleName(name)
        form = QFormLayout()
        form.addRow("Scans", self._make_folder_row(self.images))
        form.addRow("Labels", self._make_folder_row(self.labels))
        form.addRow("Structures", self.classes)
        form.addRow("Channels", self.channels)
        form.addRow("", self._assign_checkbox)
        form.addRow("Project", self._make_folder_row(self.target))
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self.preview_label = make_plain_label()
        self.preview_label.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.preview_label.setMinimumHeight(
            PREVIEW_LINES * self.preview_label.fontMetrics().lineSpacing()
        )
        layout = QVBoxLayout(self)
        layout.addWidget(
            make_hint_label(
                "Scans can be NIfTI, NRRD or MetaImage files, or DICOM series in folders. They "
                "are neither moved nor changed. The project folder stores your labels, training "
                "runs and predictions."
            )
        )
        layout.addLayout(form)
        layout.addWidget(self.preview_label)
        layout.addWidget(self.buttons)
        for field in (self.images, self.labels, self.classes, self.channels, self.target):
            field.textChanged.connect(self._update_state)
        self.images.textChanged.connect(self._suggest_target)
        self._assign_checkbox.toggled.connect(self._update_state)
        if images is not None:
            self.images.setText(str(images))
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

    def show_preview(self, text: str) -> None:
        """Show what was found in the folder of scans, or why it cannot be used."""
        self.preview_label.setText(escape_control_characters(text))

    def _make_folder_row(self, field: QLineEdit) -> QWidget:
        browse = QPushButton("Browse…")
        browse.setAccessibleName(f"Browse: {field.accessibleName()}")

        def choose() -> None:
            chosen = QFileDialog.getExistingDirectory(self, "Choose a folder", field.text())
            if chosen:
                field.setText(chosen)

        browse.clicked.connect(lambda _checked=False: choose())
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(field, 1)
        layout.addWidget(browse)
        return row

    def _suggest_target(self) -> None:
        """Suggest a folder of the project, unless the user entered one."""
        images = self.images.text().strip()
        if self.target.text() in ("", self._suggested_target) and Path(images).is_dir():
            self._suggested_target = str(suggest_project_folder(Path(images).absolute()))
            self.target.setText(self._suggested_target)

    def _update_state(self) -> None:
        images = self.images.text().strip()
        ready = bool(images and self.target.text().strip())
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(ready)
        self._assign_checkbox.setEnabled(len(_split_names(self.channels) or []) > 1)
        if self._preview is None:
            return
        if self.should_assign_channels:
            self._preview.request(None)
            self.show_preview("You assign the files to channels in the next step.")
        elif not images:
            self._preview.request(None)
            self.show_preview("")
        else:
            _, scans, labels, classes, channels = self.get_answers()
            self._preview.request((scans, labels, classes, channels))


PreviewArguments = tuple[Path, Path | None, Sequence[str] | None, Sequence[str] | None]


class _BackgroundPreview:
    """Looks into the folders of a dialog in the background, one look at a time."""

    def __init__(self, dialog: NewProjectDialog, task_runner: TaskRunner) -> None:
        self._dialog = dialog
        self._task_runner = task_runner
        self._wanted: PreviewArguments | None = None  # ``None``: nothing to show
        self._is_looking = self._is_closed = False
        self._timer = QTimer(dialog)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PREVIEW_DELAY_MS)
        self._timer.timeout.connect(self._look)
        dialog.finished.connect(lambda _: self._close())

    def request(self, arguments: PreviewArguments | None) -> None:
        """Look into other folders after a short delay; the arguments of ``preview_import``."""
        if arguments == self._wanted:
            return
        self._wanted = arguments
        if arguments is None:
            self._timer.stop()
        else:
            self._dialog.show_preview(LOOKING_TEXT)
            self._timer.start()

    def _look(self) -> None:
        arguments = self._wanted
        if self._is_looking or arguments is None:  # the look that is under way starts the next
            return
        self._is_looking = True

        def finish(text: str) -> None:
            self._is_looking = False
            if self._is_closed:
                return
            if self._wanted == arguments:
                self._dialog.show_preview(text)
            elif self._wanted is not None:
                self._timer.start()

        def show_found(preview: ImportPreview) -> None:
            finish(f"Found {preview.describe()}")

        def show_error(error: Exception) -> None:
            finish(str(error) if isinstance(error, DyconError) else "The folder cannot be read.")

        self._task_runner.submit(lambda: preview_import(*arguments), show_found, show_error)

    def _close(self) -> None:
        self._is_closed = True
        self._timer.stop()


def _split_names(field: QLineEdit) -> list[str] | None:
    return [name.strip() for name in field.text().split(",") if name.strip()] or None
