"""Dialog that creates a project."""

from __future__ import annotations

from pathlib import Path

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

from napari_dycon.widgets.window.helpers import make_hint_label


class NewProjectDialog(QDialog):
    """Folders of scans, labels and the project itself, and the names of the structures."""

    def __init__(self, parent: QWidget, images: Path | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("New project")
        self.setMinimumWidth(460)
        self.images, self.labels, self.target = QLineEdit(), QLineEdit(), QLineEdit()
        self.classes, self.channels = QLineEdit(), QLineEdit()
        self.labels.setPlaceholderText("optional; same file names as the scans")
        self.classes.setPlaceholderText("optional; e.g. liver, tumor")
        self.channels.setPlaceholderText("optional, if each patient has a folder; e.g. t1, flair")
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
        if images is not None:
            self.images.setText(str(images))
            self.target.setText(str(images.parent / f"{images.name}-dycon"))
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
                    folder = Path(chosen)
                    self.target.setText(str(folder.parent / f"{folder.name}-dycon"))

        browse.clicked.connect(lambda _checked=False: choose())
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(field, 1)
        layout.addWidget(browse)
        return row

    def _update_state(self) -> None:
        ready = bool(self.images.text().strip() and self.target.text().strip())
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(ready)
        self._assign_checkbox.setEnabled(len(_split_names(self.channels) or []) > 1)


def _split_names(field: QLineEdit) -> list[str] | None:
    return [name.strip() for name in field.text().split(",") if name.strip()] or None
