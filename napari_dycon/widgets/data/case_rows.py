"""Rows of the list of cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from qtpy.QtCore import Qt
from qtpy.QtGui import QIcon, QImage, QPainter, QPixmap
from qtpy.QtWidgets import QTreeWidgetItem

from napari_dycon.application.cases.summaries import CaseSummary
from napari_dycon.application.cases.thumbnails import Thumbnail
from napari_dycon.core.text import escape_rich_text
from napari_dycon.project.models import Case, Status

NAME, STATUS, PRIORITY, DICE = range(4)
N_COLUMNS = 4
# Marks that differ in shape, in the color of the text, so that they are legible in every theme.
STATUS_MARKS = {
    Status.UNLABELED: "○",
    Status.IN_PROGRESS: "◐",
    Status.LABELED: "●",
    Status.REVIEWED: "✔",
}
STATUS_ORDER = list(STATUS_MARKS)
FILTERS: dict[str, Callable[[Case], bool]] = {
    "All cases": lambda case: bool(case.id),
    "To do": lambda case: case.status in (Status.UNLABELED, Status.IN_PROGRESS),
    "Labeled": lambda case: case.status == Status.LABELED,
    "Reviewed": lambda case: case.status == Status.REVIEWED,
    "Validation": lambda case: case.split == "validation",
}
LAST_RANK = 1e9  # sort key of cases without a value


class SortedList(Protocol):
    """What a row needs of its list: the column that it is sorted by."""

    sort_column: int


class CaseItem(QTreeWidgetItem):
    """A row that sorts numerically, with the order in the project as the default.

    ``sort_keys`` holds one precomputed number per column, since thousands of rows are compared.
    """

    def __init__(self, case_list: SortedList, case_id: str) -> None:
        super().__init__([case_id])
        self.case_list = case_list
        self.case_id = case_id
        self.sort_keys: tuple[float, ...] = (0.0,) * N_COLUMNS

    def __lt__(self, other: QTreeWidgetItem) -> bool:
        column = self.case_list.sort_column
        keys, other_keys = self.sort_keys, other.sort_keys
        return (keys[column], keys[NAME]) < (other_keys[column], other_keys[NAME])


def compute_sort_keys(index: int, case: Case, summary: CaseSummary) -> tuple[float, ...]:
    """Return the sort keys of a row, one per column."""
    return (
        float(index),
        2.0 * STATUS_ORDER.index(case.status) + (case.split == "validation"),
        float(summary.suggestion.rank) if summary.suggestion else LAST_RANK,
        LAST_RANK if summary.dice is None else summary.dice,
    )


def update_item(item: CaseItem, case: Case, summary: CaseSummary, *, is_narrow: bool) -> None:
    """Update the row of a case."""
    is_validation, suggestion = case.split == "validation", summary.suggestion
    status = case.status.display_name.capitalize()
    mark = STATUS_MARKS[case.status]
    item.setText(NAME, case.display_name)
    files = f"\nFiles are named {case.id}" if case.name else ""
    item.setToolTip(NAME, escape_rich_text(f"{case.display_name}{files}"))
    if is_narrow:
        item.setText(STATUS, f"{mark} V" if is_validation else mark)
    else:
        item.setText(STATUS, f"{mark} {status}{' (validation)' if is_validation else ''}")
    note = ". Used for validation only, not for training" if is_validation else ""
    item.setToolTip(STATUS, f"{status}{note}")
    item.setData(STATUS, Qt.ItemDataRole.AccessibleTextRole, f"{status}{note}")
    is_ranked = suggestion is not None and suggestion.score is not None
    item.setText(
        PRIORITY,
        f"{suggestion.rank}{summary.older_mark}" if suggestion is not None and is_ranked else "",
    )
    reason = f"{suggestion.reason[0].upper()}{suggestion.reason[1:]}." if suggestion else ""
    older = f"\n{summary.older_tip}" if is_ranked and summary.older_run else ""
    item.setToolTip(PRIORITY, f"{reason}{older}")
    item.setText(DICE, summary.dice_text)
    item.setToolTip(DICE, summary.dice_tip)
    if summary.thumbnail is not None:
        item.setIcon(NAME, _make_icon(summary.thumbnail))


def _make_icon(thumbnail: Thumbnail) -> QIcon:
    """Create a square icon from a grayscale thumbnail, so that all names begin at one place."""
    height, width = thumbnail.shape
    image = QImage(thumbnail.tobytes(), width, height, width, QImage.Format.Format_Grayscale8)
    side = max(height, width)
    pixmap = QPixmap(side, side)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.drawImage((side - width) // 2, (side - height) // 2, image)
    painter.end()
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)  # not tinted: it is a scan
    return icon
