"""Comparison of label and prediction: volumes in ml and Dice."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.cases.agreement import PARTIAL_TIP, Agreement
from napari_dycon.core.text import escape_rich_text
from napari_dycon.core.volumes import format_ml
from napari_dycon.session import Session
from napari_dycon.widgets.window.helpers import make_color_icon

COLUMNS = ("Structure", "Label (ml)", "Pred. (ml)", "Dice")
# Of numbers that finished predictions replace. Names of structures need the rest of the width.
STAGE_COLUMNS = {
    "preview": (*COLUMNS[:2], "Preview (ml)", "Dice"),
    "preliminary": (*COLUMNS[:2], "Prelim. (ml)", "Dice"),
}
STAGE_TIPS = {
    "preview": "Of the preview during training",
    "preliminary": "Of the preliminary prediction",
}
ICON_SIZE_PX = 12
ROW_HEIGHT_PX = 20  # pixels
MAX_ROWS = 5  # shown without scrolling


class ComparisonTable(QTreeWidget):
    """One row per structure: the agreement of the active case."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.setHeaderLabels(list(COLUMNS))
        self.setRootIsDecorated(False)
        self.setSelectionMode(QTreeWidget.SelectionMode.NoSelection)
        self.setAccessibleName("Volumes and Dice by structure")
        self.setToolTip(
            "Volumes of label and prediction, and Dice over annotated voxels.\nThere is no Dice "
            "with a prediction that the label was made from,\nand none of a label that covers only "
            "a part of the scan"
        )
        self.setIconSize(QSize(ICON_SIZE_PX, ICON_SIZE_PX))
        header = self.header()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in range(1, len(COLUMNS)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(False)
        session.prediction_changed.connect(self.refresh)
        session.active_agreement.changed.connect(self.refresh)  # also when a case is shown
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Show the agreement as far as it is known."""
        case, active = self.session.case, self.session.active_agreement
        if case is None or case.is_prediction_pending:
            self._fill(Agreement([]))
            return
        self._name_columns(case)
        # Numbers of another case or prediction are not left until the new ones are known.
        self._fill(active.get_agreement(case) or Agreement([]))

    def _name_columns(self, case: ActiveCase) -> None:
        """Mark numbers of a prediction that is not finished."""
        names = COLUMNS if case.prediction is None else STAGE_COLUMNS.get(case.stage, COLUMNS)
        self.setHeaderLabels(list(names))
        tip = "" if case.prediction is None else STAGE_TIPS.get(case.stage, "")
        for column in (2, 3):
            self.headerItem().setToolTip(column, tip)

    def _fill(self, agreement: Agreement) -> None:
        project = self.session.project
        names = {c.value: c.name for c in project.classes} if project else {}
        colors = {c.value: c.color for c in project.classes} if project else {}
        self.clear()
        for row in agreement.rows:
            prediction = "–" if row.prediction_ml is None else format_ml(row.prediction_ml)
            item = QTreeWidgetItem(
                [
                    names.get(row.value, str(row.value)),
                    agreement.format_label_volume(row),
                    prediction,
                    agreement.format_dice(row),
                ]
            )
            if row.value in colors:  # names may be shortened
                item.setIcon(0, make_color_icon(colors[row.value], ICON_SIZE_PX))
            for column in range(1, len(COLUMNS)):
                item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight)
            item.setToolTip(0, escape_rich_text(item.text(0)))
            if agreement.is_partial and row.label_ml is not None:
                item.setToolTip(1, PARTIAL_TIP)
            item.setToolTip(3, agreement.explain_dice(row))
            self.addTopLevelItem(item)
        self._reserve_rows(len(names))

    def _reserve_rows(self, n_structures: int) -> None:
        """Keep one height for a project, so that nothing below moves."""
        rows = max(min(n_structures, MAX_ROWS), 1)
        self.setFixedHeight(self.header().height() + ROW_HEIGHT_PX * rows + 6)
