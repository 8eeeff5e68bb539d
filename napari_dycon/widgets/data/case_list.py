"""The list of cases: a picture, status, what to label next, Dice; sorted and filtered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence

from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QColor, QIcon, QImage, QPixmap, QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.case_summaries import CaseSummaries, CaseSummary, Thumbnail
from napari_dycon.project.models import Case
from napari_dycon.session import Session
from napari_dycon.widgets.window.helpers import signals_blocked

NAME, STATUS, NEXT, DICE = range(4)
HEADERS = ("Case", "Status", "Next", "Dice")
HEADER_TIPS = (
    "Scans of the project",
    'How far a case is annotated; "valid.": kept for validation, never learned from',
    "Which unlabeled cases to label next, 1 first: those the network is unsure of and that are "
    "unlike the labeled ones",
    "Dice between label and newest prediction, mean over structures",
)
# Dots that differ in shape as well as in color.
STATUS_MARKS = {
    "unlabeled": ("○", ""),
    "in progress": ("◐", "#d08a00"),
    "labeled": ("●", "#2a8fd0"),
    "reviewed": ("✔", "#0a9a74"),
}
ORDER = list(STATUS_MARKS)
FILTERS: dict[str, Callable[[Case], bool]] = {
    "All cases": lambda case: bool(case.id),
    "To label": lambda case: case.status in ("unlabeled", "in progress"),
    "Labeled": lambda case: case.status == "labeled",
    "Reviewed": lambda case: case.status == "reviewed",
    "Validation": lambda case: case.split == "validation",
}
ICON = 26  # pixels
FEW = 20  # rows that are written one after the other
MEASURED = 100  # rows by which the columns' widths are found
LOOK_MS = 50
AHEAD_MS = 700  # after a case is shown, when all of it stands there
LAST = 1e9  # where cases without a number are sorted to


class CaseItem(QTreeWidgetItem):
    """A row that sorts by numbers where there are some; the project's order is the first one.

    ``ranks`` are what the columns are sorted by: thousands of rows are compared at a time.
    """

    def __init__(self, rows: CaseList, name: str) -> None:
        super().__init__([name])
        self.rows = rows
        self.ranks: tuple[float, ...] = (0.0,) * len(HEADERS)

    def __lt__(self, other: QTreeWidgetItem) -> bool:
        column = self.rows.sorted_by
        mine, theirs = self.ranks, other.ranks
        return (mine[column], mine[NAME]) < (theirs[column], theirs[NAME])


class CaseList(QTreeWidget):
    """Rows are kept, so that the list does not jump while it is brought up to date."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.summaries = CaseSummaries(session.state, session.task_runner, session.active_learning)
        self._rows: dict[str, CaseItem] = {}
        self._told: dict[str, object] = {}  # what the rows say
        self.sorted_by = NAME
        # Pictures are drawn of what is in view, once it stays there for a moment.
        self._look = QTimer(self)
        self._look.setSingleShot(True)
        self._look.setInterval(LOOK_MS)
        self._look.timeout.connect(self._request_pictures)
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
        header.setResizeContentsPrecision(MEASURED)
        header.sortIndicatorChanged.connect(self._sort_changed)
        self.setSortingEnabled(True)
        self.sortByColumn(NAME, Qt.SortOrder.AscendingOrder)
        session.case_shown.connect(self.mark_shown)
        self._ahead = QTimer(self)
        self._ahead.setSingleShot(True)
        self._ahead.setInterval(AHEAD_MS)
        self._ahead.timeout.connect(self._read_ahead)
        session.case_shown.connect(lambda _: self._ahead.start())
        self.summaries.changed.connect(self._summaries_changed)
        self.verticalScrollBar().valueChanged.connect(lambda _: self._look.start())

    def fill(self, cases: Sequence[Case]) -> None:
        """Bring the rows up to date; those that stay as they are cost next to nothing."""
        with signals_blocked(self):
            if list(self._rows) != [case.id for case in cases]:
                self.setSortingEnabled(False)
                self.clear()
                self._told.clear()
                self._rows = {case.id: CaseItem(self, case.id) for case in cases}
                self._describe(cases)  # before the view listens to each
                self.addTopLevelItems(list(self._rows.values()))
                self.setSortingEnabled(True)
            else:
                self._describe(cases)
            self._hide(cases)
        self.mark_shown(self.session.case)
        self._look.start()

    def show_only(self, name: str) -> None:
        """Show the cases of one of the ``FILTERS``."""
        self._filter = name
        self._hide(self._cases())
        self._look.start()

    def mark_shown(self, view: ActiveCase | None) -> None:
        """Select the row of the case in view."""
        with signals_blocked(self):
            self.setCurrentItem(self._rows.get(view.id) if view is not None else None)

    def _read_ahead(self) -> None:
        """Have the case in the row below read, and the one that is suggested next."""
        view = self.session.case
        if view is None or (row := self._rows.get(view.id)) is None:
            return
        below = self.itemBelow(row)
        wanted = [below.text(NAME)] if below is not None else []
        places = [
            (found.rank, case.id)
            for case in self._cases()
            if (found := self.summaries.get(case.id).suggestion) and case.id != view.id
        ]
        wanted += [case for _, case in sorted(places)[:1] if case not in wanted]
        self.session.preload_cases(wanted)

    def _cases(self) -> list[Case]:
        return self.session.project.cases if self.session.project is not None else []

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 (Qt's name)
        """Draw the pictures of rows that come into view."""
        super().resizeEvent(event)
        self._look.start()

    def _summaries_changed(self, changed: frozenset[str]) -> None:
        """Bring only those rows up to date of which something else is known."""
        with signals_blocked(self):
            self._describe(self._cases(), changed)

    def _describe(self, cases: Sequence[Case], only: Collection[str] | None = None) -> None:
        """Write what is known of cases, in their order, into those rows that say something else."""
        different, moved = [], False
        for number, case in enumerate(cases):
            item = self._rows.get(case.id)
            if item is None or (only is not None and case.id not in only):
                continue
            known = self.summaries.get(case.id)
            told = (case.status, case.split, known.dice, known.suggestion, id(known.thumbnail))
            ranks = _ranks(number, case, known)
            if self._told.get(case.id) != told:
                self._told[case.id] = told
                different.append((item, case, known))
            moved |= ranks != item.ranks
            item.ranks = ranks
        if not different and not moved:
            return
        # Qt would measure columns and find the place of a row for each text that changes.
        many = moved or len(different) > FEW
        if many:
            self.setSortingEnabled(False)
        with signals_blocked(self.model()) if many else contextlib.nullcontext():
            for row in different:
                _write(*row)
        if many and self.topLevelItemCount():
            last = self.model().index(self.topLevelItemCount() - 1, DICE)
            self.model().dataChanged.emit(self.model().index(0, NAME), last)
        if many:
            self.setSortingEnabled(True)

    def _hide(self, cases: Sequence[Case]) -> None:
        wanted = FILTERS[self._filter]
        for case in cases:
            item = self._rows[case.id]
            if item.isHidden() == wanted(case):
                item.setHidden(not wanted(case))

    def _sort_changed(self, column: int, _: Qt.SortOrder) -> None:
        self.sorted_by = column
        self._look.start()

    def _request_pictures(self) -> None:
        """Ask for the pictures of the rows in view, and of as many below them."""
        found: list[str] = []
        item = self.itemAt(0, 0)
        shown = 2 * (self.viewport().height() // max(self.sizeHintForRow(0), 1) + 1)
        while item is not None and len(found) < shown:
            found.append(item.text(NAME))
            item = self.itemBelow(item)
        self.summaries.request_thumbnails(found)


def _ranks(number: int, case: Case, known: CaseSummary) -> tuple[float, ...]:
    """What the columns of a row are sorted by."""
    return (
        float(number),
        2.0 * ORDER.index(case.status) + (case.split == "validation"),
        float(known.suggestion.rank) if known.suggestion else LAST,
        LAST if known.dice is None else known.dice,
    )


def _write(item: CaseItem, case: Case, known: CaseSummary) -> None:
    """Write what is known of a case into its row."""
    mark, color = STATUS_MARKS[case.status]
    validation, found = case.split == "validation", known.suggestion
    item.setText(STATUS, f"{mark} {case.status}{', valid.' if validation else ''}")
    item.setForeground(STATUS, QColor(color) if color else item.foreground(NAME))
    tip = "kept for validation: never learned from, used to measure" if validation else ""
    item.setToolTip(STATUS, tip)
    item.setText(NEXT, str(found.rank) if found and found.score is not None else "")
    item.setToolTip(NEXT, f"{found.reason[0].upper()}{found.reason[1:]}." if found else "")
    item.setText(DICE, "" if known.dice is None else f"{known.dice:.2f}")
    if known.thumbnail is not None:
        item.setIcon(NAME, _icon(known.thumbnail))


def _icon(picture: Thumbnail) -> QIcon:
    """Icon of a gray picture, centerd on a square."""
    height, width = picture.shape
    image = QImage(picture.tobytes(), width, height, width, QImage.Format.Format_Grayscale8)
    pixmap = QPixmap.fromImage(image.copy())
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)  # not tinted: it is a scan
    return icon
