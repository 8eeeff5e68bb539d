"""Export dialog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.application.task_runner import InlineTaskRunner, TaskRunner
from napari_dycon.core.text import escape_control_characters
from napari_dycon.exports.masks import FILE_SUFFIXES
from napari_dycon.exports.options import ExportOptions
from napari_dycon.exports.registry import FORMATS
from napari_dycon.exports.selection import MaskOrigin, PlannedMask, plan_masks
from napari_dycon.project.store import Project
from napari_dycon.widgets.dialogs.export_table import ExportTable
from napari_dycon.widgets.dialogs.terminology_combo import make_terminology_combo
from napari_dycon.widgets.window.helpers import make_hint_label, make_plain_label

# Of the form, in pixels, to fit a small screen with its bars; with and without the table.
MAX_HEIGHT_PX, MAX_HEIGHT_WITH_TABLE_PX = 480, 290
MIN_WIDTH_PX = 600
MAX_NAMED = 5  # cases named in a question
MASK_SOURCES = {
    "auto": "your labels, plus predictions where nothing is labeled",
    "labels": "labels only",
    "predictions": "predictions only",
}
FORMAT_HINTS = {
    "nnunet": "Scans are copied; free text in their headers is removed.",
    "monai-bundle": "The newest model with everything MONAI needs to run it.",
    "report": "One HTML page with images, volumes and agreement, plus a CSV table.",
    "dicom-seg": "One file per case, linked to its series. Select a standard term for each "
    "structure.",
}


class ExportDialog(QDialog):
    """Format, folder and options of an export."""

    def __init__(
        self, parent: QWidget | None, project: Project, task_runner: TaskRunner | None = None
    ) -> None:
        super().__init__(parent)
        self._project = project
        self._task_runner = task_runner or InlineTaskRunner()
        self._plan_number = 0  # of the latest plan; results of earlier ones are dropped
        self._planned_for: tuple[str, bool] | None = None
        self.setWindowTitle("Export")
        self.setMinimumWidth(MIN_WIDTH_PX)
        self.format_ = QComboBox()
        for name, text in FORMATS.items():
            self.format_.addItem(capitalize(text), name)
        self.out = QLineEdit(str(project.path.parent / f"{project.name}-export"))
        self.mask_source = QComboBox()
        for name, text in MASK_SOURCES.items():
            self.mask_source.addItem(capitalize(text), name)
        self.uncertainty = QCheckBox("Also export uncertainty maps")
        self.keep_identity = QCheckBox("Keep patient name and dates")
        self.keep_identity.setToolTip(
            "Some archives reject files without patient data. By default patient data is removed"
        )
        self.terms: dict[int, QComboBox] = {}
        self._format_hint = make_hint_label("")
        self._form = QFormLayout()
        self._form.addRow("Format", self.format_)
        self._form.addRow("Folder", self._make_folder_row())
        self._form.addRow("", self._format_hint)
        self._form.addRow("Include", self.mask_source)
        self._form.addRow("", self.uncertainty)
        self._form.addRow("", self.keep_identity)
        self._terms_widget = QWidget()  # hidden as a whole: Qt keeps spacing between hidden rows
        rows = QFormLayout(self._terms_widget)
        rows.setContentsMargins(0, 0, 0, 0)
        for info in project.classes:
            self.terms[info.value] = make_terminology_combo(info.name)
            name = make_plain_label(f"Term for {info.name}", wrap=False)
            self.terms[info.value].setAccessibleName(name.text())
            rows.addRow(name, self.terms[info.value])
        self._form.addRow(self._terms_widget)
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setText("Export")
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self._inner = QWidget()
        self._inner.setLayout(self._form)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._scroll = QScrollArea()  # a project may have many structures
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setWidget(self._inner)
        layout = QVBoxLayout(self)
        self.table = ExportTable()
        self.table.selection_changed.connect(self._update_button)
        layout.addWidget(self._scroll)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.buttons)
        self.format_.currentIndexChanged.connect(self._refresh)
        self.mask_source.currentIndexChanged.connect(self._refresh)
        self.finished.connect(lambda _: self._drop_plan())
        self.out.textChanged.connect(self._refresh)
        self._refresh()

    def get_answers(self) -> tuple[str, Path, dict[str, Any]]:
        """Format, folder and options, as ``Session.export`` takes them."""
        name = str(self.format_.currentData())
        options: dict[str, Any] = {}
        if name in FILE_SUFFIXES:
            options["source"] = self.mask_source.currentData()
            options["uncertainty"] = self.uncertainty.isChecked()
            # No more than what was shown, should a label change in the meantime.
            masks = self.table.selected
            options["cases"] = [mask.case for mask in masks]
            options["include_partial"] = any(mask.is_unfinished for mask in masks)
            options["include_unreviewed"] = any(
                mask.origin is not None and mask.origin.is_predicted for mask in masks
            )
        if name == "dicom-seg":
            options["keep_identity"] = self.keep_identity.isChecked()
            options["codes"] = {
                value: box.itemData(box.currentIndex()) for value, box in self.terms.items()
            }
        return name, Path(self.out.text().strip()), options

    def accept(self) -> None:
        """Close the dialog; before, ask about half-drawn masks that become DICOM files."""
        if self.format_.currentData() == "dicom-seg":
            partial = [
                mask.case for mask in self.table.selected if mask.origin is MaskOrigin.PARTIAL
            ]
            if partial and not self._confirm_partial(partial):
                return
        super().accept()

    def _confirm_partial(self, cases: list[str]) -> bool:
        """Ask whether to write DICOM segmentations of scans that are drawn in part."""
        rest = f" and {len(cases) - MAX_NAMED} more" if len(cases) > MAX_NAMED else ""
        names = ", ".join(cases[:MAX_NAMED]) + rest
        structures = ", ".join(f"not {info.name}" for info in self._project.classes[:3])
        box = QMessageBox(self)
        box.setIcon(QMessageBox.Icon.Warning)
        box.setWindowTitle("Drawn in part")
        box.setTextFormat(Qt.TextFormat.PlainText)  # it contains untrusted names
        verb = "is" if len(cases) == 1 else "are"
        box.setText(escape_control_characters(f"{names} {verb} drawn only in part."))
        box.setInformativeText(
            escape_control_characters(
                f"In a DICOM segmentation, every voxel that is not drawn counts as {structures}. "
                "Whoever reads the file cannot tell that a part is missing. Finish drawing first, "
                "or export NIfTI, which marks voxels that are not annotated."
            )
        )
        export = box.addButton("Export anyway", QMessageBox.ButtonRole.AcceptRole)
        cancel = box.addButton(QMessageBox.StandardButton.Cancel)
        box.setDefaultButton(cancel)
        box.setEscapeButton(cancel)
        box.exec()
        confirmed = box.clickedButton() is export
        box.deleteLater()
        return confirmed

    def _plan(self) -> None:
        """List the masks in the background: first by their status, then from their voxels."""
        source, needs_series = self._get_plan_key()
        self._planned_for = (source, needs_series)
        self._plan_number += 1
        number, project = self._plan_number, self._project
        options = ExportOptions(source=source, include_partial=True, include_unreviewed=True)

        def show(masks: list[PlannedMask]) -> None:
            if self._plan_number == number:
                self.table.set_masks(masks, source)

        def show_first(masks: list[PlannedMask]) -> None:
            show(masks)
            if self._plan_number == number:
                self._task_runner.submit(
                    lambda: plan_masks(project, options, needs_series=needs_series),
                    show,
                    lambda _error: None,  # reported when the masks are written
                )

        self.table.show_checking()
        self._task_runner.submit(
            lambda: plan_masks(project, options, read_labels=False, needs_series=needs_series),
            show_first,
            lambda error: self._show_plan_error(number, error),
        )

    def _show_plan_error(self, number: int, error: Exception) -> None:
        if self._plan_number == number:
            self.table.summary_label.setText(escape_control_characters(error))

    def _drop_plan(self) -> None:
        self._plan_number += 1

    def _get_plan_key(self) -> tuple[str, bool]:
        """Return what the list of masks depends on."""
        return str(self.mask_source.currentData()), self.format_.currentData() == "dicom-seg"

    def _make_folder_row(self) -> QWidget:
        self.out.setAccessibleName("Folder to export to")
        browse = QPushButton("Browse…")
        browse.setAccessibleName("Browse: folder to export to")

        def choose() -> None:
            chosen = QFileDialog.getExistingDirectory(self, "Export to", self.out.text())
            if chosen:
                self.out.setText(chosen)

        browse.clicked.connect(lambda _checked=False: choose())
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.out, 1)
        layout.addWidget(browse)
        return row

    def _set_row_visible(self, widget: QWidget, visible: bool) -> None:
        widget.setVisible(visible)  # Qt 5 cannot hide a row as a whole
        if (label := self._form.labelForField(widget)) is not None:
            label.setVisible(visible)

    def _refresh(self, *_: object) -> None:
        name = str(self.format_.currentData())
        self._format_hint.setText(
            FORMAT_HINTS.get(name, "One file per case, on the grid of its scan.")
        )
        for widget in (self.mask_source, self.uncertainty):
            self._set_row_visible(widget, name in FILE_SUFFIXES)
        for widget in (self.keep_identity, self._terms_widget):
            self._set_row_visible(widget, name == "dicom-seg")
        has_table = name in FILE_SUFFIXES
        self.table.setVisible(has_table)
        if has_table and self._planned_for != self._get_plan_key():
            self._plan()
        self._update_button()
        self._fit_height()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 (Qt's name)
        """Fit the height again, since the style is known only now."""
        super().showEvent(event)
        self._fit_height()

    def _fit_height(self) -> None:
        """Make the form as high as it needs to be, up to a limit."""
        self._form.activate()
        bar, size_hint = self._scroll.verticalScrollBar(), self._inner.sizeHint()
        max_height = MAX_HEIGHT_WITH_TABLE_PX if self.table.isVisibleTo(self) else MAX_HEIGHT_PX
        height = min(size_hint.height(), max_height)
        self._scroll.setMinimumWidth(size_hint.width() + bar.sizeHint().width())
        self._scroll.setFixedHeight(height)
        self.adjustSize()
        # The size hint does not know how wrapped text is laid out.
        self._scroll.setFixedHeight(min(height + bar.maximum(), max_height))
        self.adjustSize()

    def _update_button(self) -> None:
        has_cases = self.format_.currentData() not in FILE_SUFFIXES or bool(self.table.selected)
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(
            bool(self.out.text().strip()) and has_cases
        )


def capitalize(text: str) -> str:
    """Begin a text with a capital letter, except for names such as nnU-Net."""
    return text if text.startswith("nnU-Net") else text[0].upper() + text[1:]
