"""Comparison of label and prediction: volumes in ml and Dice."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_dycon.engine.evaluation.label_comparison import StructureComparison, compare_structures
from napari_dycon.session import Session

COLUMNS = ("Structure", "Label (ml)", "Pred. (ml)", "Dice")
ROW_HEIGHT_PX = 20  # pixels


class ComparisonTable(QTreeWidget):
    """One row per structure, recomputed in the background when label or prediction change."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._request_id = 0
        self.setHeaderLabels(list(COLUMNS))
        self.setRootIsDecorated(False)
        self.setSelectionMode(QTreeWidget.SelectionMode.NoSelection)
        self.setToolTip(
            "Volumes of label and prediction, and Dice over annotated voxels.\nIf only some "
            "slices are annotated, the label volume is that of the painted voxels"
        )
        header = self.header()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in range(1, len(COLUMNS)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(False)
        for signal in (
            session.case_shown,
            session.prediction_changed,
            session.label_saved,
            session.label_edited,
        ):
            signal.connect(self.refresh)
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Recompute the comparison."""
        case, project = self.session.case, self.session.project
        self._request_id += 1
        if case is None or project is None:
            self._fill([])
            return
        request_id, spacing = self._request_id, case.image.spacing_mm
        label, prediction = case.label.copy(), case.prediction
        values = [info.value for info in project.classes]

        def on_done(rows: list[StructureComparison]) -> None:
            if request_id == self._request_id:
                self._fill(rows)

        self.session.task_runner.submit(
            lambda: compare_structures(label, prediction, values, spacing),
            on_done,
            self.session.report_error,
        )

    def _fill(self, rows: list[StructureComparison]) -> None:
        project = self.session.project
        names = {c.value: c.name for c in project.classes} if project else {}
        self.clear()
        for row in rows:
            cells = [
                names.get(row.value, str(row.value)),
                *map(_format_volume, (row.label_ml, row.prediction_ml)),
            ]
            item = QTreeWidgetItem([*cells, "–" if row.dice is None else f"{row.dice:.3f}"])
            for column in range(1, len(COLUMNS)):
                item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight)
            self.addTopLevelItem(item)
        self.setFixedHeight(self.header().height() + ROW_HEIGHT_PX * max(min(len(rows), 5), 1) + 6)


def _format_volume(ml: float | None) -> str:
    if ml is None:
        return "–"
    return f"{ml:.1f}" if ml >= 10 else f"{ml:.2f}"
