"""The list of cases: a picture, status, what to label next, Dice; sorted and filtered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QIcon, QImage, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_dycon.application.case_summaries import CaseSummaries, CaseSummary, Picture
from napari_dycon.application.case_view import CaseView
from napari_dycon.project.schema import Case
from napari_dycon.session import Session
from napari_dycon.widgets.common import signals_blocked

NAME, STATUS, NEXT, DICE = range(4)
HEADERS = ("Case", "Status", "Next", "Dice")
HEADER_TIPS = (
    "Scans of the project",
    'How far a case is annotated; "valid.": kept for validation, never learnt from',
    "Which unlabelled cases to label next, 1 first: those the network is unsure of and that are "
    "unlike the labelled ones",
    "Dice between label and newest prediction, mean over structures",
)
# Dots that differ in shape as well as in colour.
STATUS_MARKS = {
    "unlabelled": ("○", ""),
    "in progress": ("◐", "#d08a00"),
    "labelled": ("●", "#2a8fd0"),
    "reviewed": ("✔", "#0a9a74"),
}
ORDER = list(STATUS_MARKS)
FILTERS: dict[str, Callable[[Case], bool]] = {
    "All cases": lambda case: bool(case.id),
    "To label": lambda case: case.status in ("unlabelled", "in progress"),
    "Labelled": lambda case: case.status == "labelled",
    "Reviewed": lambda case: case.status == "reviewed",
    "Validation": lambda case: case.split == "validation",
}
SORT_ROLE = int(Qt.ItemDataRole.UserRole)
ICON = 26  # pixels
LAST = 1e9  # where cases without a number are sorted to


class CaseItem(QTreeWidgetItem):
    """A row that sorts by numbers where there are some; the project's order is the first one."""

    def __lt__(self, other: QTreeWidgetItem) -> bool:
        column = self.treeWidget().sortColumn()
        mine, theirs = self.data(column, SORT_ROLE), other.data(column, SORT_ROLE)
        return bool((mine, self.data(NAME, SORT_ROLE)) < (theirs, other.data(NAME, SORT_ROLE)))


class CaseList(QTreeWidget):
    """Rows are kept, so that the list does not jump while it is brought up to date."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.summaries = CaseSummaries(session)
        self._rows: dict[str, CaseItem] = {}
        self._drawn: dict[str, int] = {}
        self._filter = next(iter(FILTERS))
        self.setHeaderLabels(list(HEADERS))
        for column, tip in enumerate(HEADER_TIPS):
            self.headerItem().setToolTip(column, f"{tip}.\nClick to sort")
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # names often differ at their ends
        self.setIconSize(QSize(ICON, ICON))
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setMinimumHeight(110)
        header = self.header()
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        for column in (STATUS, NEXT, DICE):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(False)
        self.setSortingEnabled(True)
        self.sortByColumn(NAME, Qt.SortOrder.AscendingOrder)
        session.case_shown.connect(self.mark_shown)
        self.summaries.changed.connect(lambda: self.fill(self._cases()))

    def fill(self, cases: Sequence[Case]) -> None:
        """Bring the rows up to date."""
        self.setSortingEnabled(False)
        with signals_blocked(self):
            if list(self._rows) != [case.id for case in cases]:
                self.clear()
                self._drawn.clear()
                self._rows = {case.id: CaseItem([case.id]) for case in cases}
                self.addTopLevelItems(list(self._rows.values()))
            for number, case in enumerate(cases):
                self._describe(self._rows[case.id], number, case, self.summaries.of(case.id))
        self.setSortingEnabled(True)
        self.mark_shown(self.session.view)

    def show_only(self, name: str) -> None:
        """Show the cases of one of the ``FILTERS``."""
        self._filter = name
        self.fill(self._cases())

    def mark_shown(self, view: CaseView | None) -> None:
        """Select the row of the case in view."""
        with signals_blocked(self):
            self.setCurrentItem(self._rows.get(view.id) if view is not None else None)

    def _cases(self) -> list[Case]:
        return self.session.project.cases if self.session.project is not None else []

    def _describe(self, item: CaseItem, number: int, case: Case, known: CaseSummary) -> None:
        mark, color = STATUS_MARKS[case.status]
        validation = case.split == "validation"
        item.setData(NAME, SORT_ROLE, number)
        item.setText(STATUS, f"{mark} {case.status}{', valid.' if validation else ''}")
        item.setData(STATUS, SORT_ROLE, 2 * ORDER.index(case.status) + validation)
        item.setForeground(STATUS, QColor(color) if color else item.foreground(NAME))
        tip = "kept for validation: never learnt from, used to measure" if validation else ""
        item.setToolTip(STATUS, tip)
        found = known.suggestion
        item.setText(NEXT, str(found.place) if found and found.score is not None else "")
        item.setData(NEXT, SORT_ROLE, found.place if found else LAST)
        item.setToolTip(NEXT, f"{found.reason[0].upper()}{found.reason[1:]}." if found else "")
        item.setText(DICE, "" if known.dice is None else f"{known.dice:.2f}")
        item.setData(DICE, SORT_ROLE, LAST if known.dice is None else known.dice)
        if known.picture is not None and self._drawn.get(case.id) != id(known.picture):
            item.setIcon(NAME, _icon(known.picture))
            self._drawn[case.id] = id(known.picture)
        item.setHidden(not FILTERS[self._filter](case))


def _icon(picture: Picture) -> QIcon:
    """Icon of a grey picture, centred on a square."""
    height, width = picture.shape
    image = QImage(picture.tobytes(), width, height, width, QImage.Format.Format_Grayscale8)
    pixmap = QPixmap.fromImage(image.copy())
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)  # not tinted: it is a scan
    return icon
