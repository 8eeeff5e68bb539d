"""The list of cases: thumbnail, status, priority and Dice; sorted and filtered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence

from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QColor, QIcon, QImage, QPixmap, QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.cases.summaries import CaseSummaries, CaseSummary, Thumbnail
from napari_dycon.project.models import Case, Status
from napari_dycon.session import Session
from napari_dycon.widgets.window.helpers import signals_blocked

NAME, STATUS, PRIORITY, DICE = range(4)
HEADERS = ("Case", "Status", "Priority", "Dice")
HEADER_TIPS = (
    "Cases of the project",
    'Annotation status; "val.": validation case, not used for training',
    "Suggested labeling order, 1 first: cases with high uncertainty that differ from the labeled "
    "ones",
    "Dice of label and newest prediction, averaged over structures",
)
# Dots that differ in shape as well as in color.
STATUS_MARKS = {
    Status.UNLABELED: ("○", ""),
    Status.IN_PROGRESS: ("◐", "#d08a00"),
    Status.LABELED: ("●", "#2a8fd0"),
    Status.REVIEWED: ("✔", "#0a9a74"),
}
STATUS_ORDER = list(STATUS_MARKS)
FILTERS: dict[str, Callable[[Case], bool]] = {
    "All cases": lambda case: bool(case.id),
    "To label": lambda case: case.status in (Status.UNLABELED, Status.IN_PROGRESS),
    "Labeled": lambda case: case.status == Status.LABELED,
    "Reviewed": lambda case: case.status == Status.REVIEWED,
    "Validation": lambda case: case.split == "validation",
}
HEADER_MARGIN_PX = 22  # beside the text of narrow columns, to leave more room for names
ICON_SIZE_PX = 26  # pixels
MAX_SINGLE_UPDATES = 20  # rows that are updated one by one
N_MEASURED_ROWS = 100  # rows measured for the widths of columns
THUMBNAIL_DELAY_MS = 50
PREFETCH_DELAY_MS = 700  # after a case is shown and loaded
LAST_RANK = 1e9  # sort key of cases without a value


class CaseItem(QTreeWidgetItem):
    """A row that sorts numerically, with the order in the project as the default.

    ``sort_keys`` holds one precomputed number per column, since thousands of rows are compared.
    """

    def __init__(self, case_list: CaseList, name: str) -> None:
        super().__init__([name])
        self.case_list = case_list
        self.sort_keys: tuple[float, ...] = (0.0,) * len(HEADERS)

    def __lt__(self, other: QTreeWidgetItem) -> bool:
        column = self.case_list.sort_column
        keys, other_keys = self.sort_keys, other.sort_keys
        return (keys[column], keys[NAME]) < (other_keys[column], other_keys[NAME])


class CaseList(QTreeWidget):
    """Tree widget whose rows are updated in place, so that the list does not jump."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.summaries = CaseSummaries(session.state, session.task_runner, session.active_learning)
        self._items: dict[str, CaseItem] = {}
        self._displayed: dict[str, object] = {}  # values that the rows display
        self.sort_column = NAME
        # Thumbnails are drawn for visible rows after scrolling has stopped.
        self._thumbnail_timer = QTimer(self)
        self._thumbnail_timer.setSingleShot(True)
        self._thumbnail_timer.setInterval(THUMBNAIL_DELAY_MS)
        self._thumbnail_timer.timeout.connect(self._request_thumbnails)
        self._filter_name = next(iter(FILTERS))
        self.setHeaderLabels(list(HEADERS))
        for column, tip in enumerate(HEADER_TIPS):
            self.headerItem().setToolTip(column, f"{tip}.\nClick to sort")
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # names often differ at their ends
        self.setIconSize(QSize(ICON_SIZE_PX, ICON_SIZE_PX))
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setMinimumHeight(110)
        header = self.header()
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(STATUS, QHeaderView.ResizeMode.ResizeToContents)
        for column in (PRIORITY, DICE):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            text_width = header.fontMetrics().horizontalAdvance(HEADERS[column])
            header.resizeSection(column, text_width + HEADER_MARGIN_PX)
        header.setStretchLastSection(False)
        header.setResizeContentsPrecision(N_MEASURED_ROWS)
        header.sortIndicatorChanged.connect(self._on_sort_changed)
        self.setSortingEnabled(True)
        self.sortByColumn(NAME, Qt.SortOrder.AscendingOrder)
        session.case_shown.connect(self.highlight_active)
        self._prefetch_timer = QTimer(self)
        self._prefetch_timer.setSingleShot(True)
        self._prefetch_timer.setInterval(PREFETCH_DELAY_MS)
        self._prefetch_timer.timeout.connect(self._prefetch)
        session.case_shown.connect(lambda _: self._prefetch_timer.start())
        self.summaries.changed.connect(self._on_summaries_changed)
        self.verticalScrollBar().valueChanged.connect(lambda _: self._thumbnail_timer.start())

    def fill(self, cases: Sequence[Case]) -> None:
        """Update the rows; unchanged ones cost next to nothing."""
        with signals_blocked(self):
            if list(self._items) != [case.id for case in cases]:
                self.setSortingEnabled(False)
                self.clear()
                self._displayed.clear()
                self._items = {case.id: CaseItem(self, case.id) for case in cases}
                self._update_items(cases)  # before the view listens to each
                self.addTopLevelItems(list(self._items.values()))
                self.setSortingEnabled(True)
            else:
                self._update_items(cases)
            self._hide_filtered(cases)
        self.highlight_active(self.session.case)
        self._thumbnail_timer.start()

    def apply_filter(self, name: str) -> None:
        """Show the cases of one of the ``FILTERS``."""
        self._filter_name = name
        self._hide_filtered(self._get_cases())
        self._thumbnail_timer.start()

    def highlight_active(self, case: ActiveCase | None) -> None:
        """Select the row of the active case."""
        with signals_blocked(self):
            self.setCurrentItem(self._items.get(case.id) if case is not None else None)

    def _prefetch(self) -> None:
        """Preload the case in the row below and the one suggested next."""
        active_case = self.session.case
        if active_case is None or (item := self._items.get(active_case.id)) is None:
            return
        next_item = self.itemBelow(item)
        case_ids = [next_item.text(NAME)] if next_item is not None else []
        ranked = [
            (suggestion.rank, case.id)
            for case in self._get_cases()
            if (suggestion := self.summaries.get(case.id).suggestion) and case.id != active_case.id
        ]
        case_ids += [case for _, case in sorted(ranked)[:1] if case not in case_ids]
        self.session.preload_cases(case_ids)

    def _get_cases(self) -> list[Case]:
        return self.session.project.cases if self.session.project is not None else []

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 (Qt's name)
        """Draw the thumbnails of rows that become visible."""
        super().resizeEvent(event)
        self._thumbnail_timer.start()

    def _on_summaries_changed(self, changed: frozenset[str]) -> None:
        """Update only rows whose summaries changed."""
        with signals_blocked(self):
            self._update_items(self._get_cases(), changed)

    def _update_items(self, cases: Sequence[Case], case_ids: Collection[str] | None = None) -> None:
        """Update the rows of cases whose displayed values changed."""
        changed_rows, has_moved = [], False
        for number, case in enumerate(cases):
            item = self._items.get(case.id)
            if item is None or (case_ids is not None and case.id not in case_ids):
                continue
            summary = self.summaries.get(case.id)
            displayed = (
                case.status,
                case.split,
                (summary.dice_text, summary.dice_tip),
                summary.suggestion,
                id(summary.thumbnail),
            )
            sort_keys = _compute_sort_keys(number, case, summary)
            if self._displayed.get(case.id) != displayed:
                self._displayed[case.id] = displayed
                changed_rows.append((item, case, summary))
            has_moved |= sort_keys != item.sort_keys
            item.sort_keys = sort_keys
        if not changed_rows and not has_moved:
            return
        # Otherwise Qt would resize columns and re-sort after each changed text.
        is_bulk = has_moved or len(changed_rows) > MAX_SINGLE_UPDATES
        if is_bulk:
            self.setSortingEnabled(False)
        with signals_blocked(self.model()) if is_bulk else contextlib.nullcontext():
            for row in changed_rows:
                _update_item(*row)
        if is_bulk and self.topLevelItemCount():
            last_index = self.model().index(self.topLevelItemCount() - 1, DICE)
            self.model().dataChanged.emit(self.model().index(0, NAME), last_index)
        if is_bulk:
            self.setSortingEnabled(True)

    def _hide_filtered(self, cases: Sequence[Case]) -> None:
        is_shown = FILTERS[self._filter_name]
        for case in cases:
            item = self._items[case.id]
            if item.isHidden() == is_shown(case):
                item.setHidden(not is_shown(case))

    def _on_sort_changed(self, column: int, _: Qt.SortOrder) -> None:
        self.sort_column = column
        self._thumbnail_timer.start()

    def _request_thumbnails(self) -> None:
        """Request the thumbnails of visible rows and of as many rows below."""
        case_ids: list[str] = []
        item = self.itemAt(0, 0)
        n_rows = 2 * (self.viewport().height() // max(self.sizeHintForRow(0), 1) + 1)
        while item is not None and len(case_ids) < n_rows:
            case_ids.append(item.text(NAME))
            item = self.itemBelow(item)
        self.summaries.request_thumbnails(case_ids)


def _compute_sort_keys(index: int, case: Case, summary: CaseSummary) -> tuple[float, ...]:
    """Return the sort keys of a row, one per column."""
    return (
        float(index),
        2.0 * STATUS_ORDER.index(case.status) + (case.split == "validation"),
        float(summary.suggestion.rank) if summary.suggestion else LAST_RANK,
        LAST_RANK if summary.dice is None else summary.dice,
    )


def _update_item(item: CaseItem, case: Case, summary: CaseSummary) -> None:
    """Update the row of a case."""
    mark, color = STATUS_MARKS[case.status]
    is_validation, suggestion = case.split == "validation", summary.suggestion
    item.setText(STATUS, f"{mark} {case.status.display_name}{' (val.)' if is_validation else ''}")
    item.setForeground(STATUS, QColor(color) if color else item.foreground(NAME))
    tip = "Validation case: not used for training" if is_validation else ""
    item.setToolTip(STATUS, tip)
    item.setText(
        PRIORITY, str(suggestion.rank) if suggestion and suggestion.score is not None else ""
    )
    item.setToolTip(
        PRIORITY, f"{suggestion.reason[0].upper()}{suggestion.reason[1:]}." if suggestion else ""
    )
    item.setText(DICE, summary.dice_text)
    item.setToolTip(DICE, summary.dice_tip)
    if summary.thumbnail is not None:
        item.setIcon(NAME, _make_icon(summary.thumbnail))


def _make_icon(thumbnail: Thumbnail) -> QIcon:
    """Create an icon from a grayscale thumbnail."""
    height, width = thumbnail.shape
    image = QImage(thumbnail.tobytes(), width, height, width, QImage.Format.Format_Grayscale8)
    pixmap = QPixmap.fromImage(image.copy())
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)  # not tinted: it is a scan
    return icon
