"""The list of cases: thumbnail, status, priority and Dice; sorted and filtered.

A case opens by a left click or by Enter, never by the arrow keys, by a letter or by a right click:
opening another patient by accident is dangerous.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence

from qtpy.QtCore import QEvent, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QContextMenuEvent, QFocusEvent, QKeyEvent, QMouseEvent, QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.cases.summaries import CaseSummaries
from napari_dycon.project.models import Case, Status
from napari_dycon.session import Session
from napari_dycon.widgets.data.case_rows import (
    DICE,
    FILTERS,
    NAME,
    PRIORITY,
    STATUS,
    STATUS_MARKS,
    CaseItem,
    compute_sort_keys,
    update_item,
)
from napari_dycon.widgets.window.helpers import signals_blocked

HEADERS = ("Case", "Status", "Priority", "Dice")
HEADER_TIPS = (
    "Cases of the project",
    "Annotation status: ○ unlabeled, ◐ in progress, ● labeled, ✔ reviewed. "
    '"Validation" or "V": used for validation only',
    "Suggested labeling order, 1 first: cases with high uncertainty that differ from the labeled "
    "ones",
    "Dice of label and newest prediction, averaged over structures",
)
HEADER_MARGIN_PX = 14  # beside the text of narrow columns, to leave more room for names
SORT_MARK_PX = 10  # of the arrow in the header of the sorted column
NARROW_PX = 430  # width below which the status is shown as a mark only
LOW_PX = 200  # height below which pictures are small
ICON_SIZES_PX = (16, 26)  # in a low and in a high list
ROW_MARGIN_PX = 2
# Other keys are left to the window: a letter must not open another case.
LIST_KEYS = {
    Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_PageUp, Qt.Key.Key_PageDown, Qt.Key.Key_Home,
    Qt.Key.Key_End, Qt.Key.Key_Tab, Qt.Key.Key_Backtab,
}  # fmt: skip
MAX_SINGLE_UPDATES = 20  # rows that are updated one by one
THUMBNAIL_DELAY_MS = 50
PREFETCH_DELAY_MS = 700  # after a case is shown and loaded


class CaseList(QTreeWidget):
    """Tree widget whose rows are updated in place, so that the list does not jump."""

    case_chosen = Signal(str)  # id of a case that was clicked, or chosen with Enter
    rename_requested = Signal(str)  # id of a case, by F2

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.summaries = CaseSummaries(
            session.state,
            session.task_runner,
            session.active_learning,
            session.active_agreement,
        )
        self._items: dict[str, CaseItem] = {}
        self._displayed: dict[str, object] = {}  # values that the rows display
        self.sort_column = NAME
        self._bold_case_id = ""  # whose name is bold
        # Thumbnails are drawn for visible rows after scrolling has stopped.
        self._thumbnail_timer = QTimer(self)
        self._thumbnail_timer.setSingleShot(True)
        self._thumbnail_timer.setInterval(THUMBNAIL_DELAY_MS)
        self._thumbnail_timer.timeout.connect(self._request_thumbnails)
        self._filter_name = next(iter(FILTERS))
        self._is_narrow = False
        self._set_up_columns()
        self.itemClicked.connect(lambda item, _: self.case_chosen.emit(item.case_id))
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

    def _set_up_columns(self) -> None:
        """Let names have all the width that the other columns do not need."""
        self.setHeaderLabels(list(HEADERS))
        for column, tip in enumerate(HEADER_TIPS):
            self.headerItem().setToolTip(column, f"{tip}.\nClick to sort")
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # names often differ at their ends
        self.setIconSize(QSize(ICON_SIZES_PX[1], ICON_SIZES_PX[1]))
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setAccessibleName("Cases")
        self.setMinimumHeight(84)
        header = self.header()
        header.setMinimumSectionSize(20)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        for column in (STATUS, PRIORITY, DICE):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
        header.setStretchLastSection(False)
        header.sortIndicatorChanged.connect(self._on_sort_changed)
        self._resize_columns()

    def _resize_columns(self) -> None:
        """Make the columns beside the name as wide as their texts; narrow lists show marks."""
        self._is_narrow = self.viewport().width() < NARROW_PX
        names = (HEADERS[NAME], "" if self._is_narrow else HEADERS[STATUS], *HEADERS[PRIORITY:])
        if [self.headerItem().text(column) for column in range(len(names))] != list(names):
            self.setHeaderLabels(list(names))
        metrics, header = self.fontMetrics(), self.header()
        longest = f"{STATUS_MARKS[Status.IN_PROGRESS]} Unlabeled (validation)"
        texts = ("", "◐ V" if self._is_narrow else longest, "100", "0.00")
        for column in (STATUS, PRIORITY, DICE):
            mark = SORT_MARK_PX if column == self.sort_column else 0
            header_width = header.fontMetrics().horizontalAdvance(names[column]) + mark
            width = max(header_width, metrics.horizontalAdvance(texts[column]))
            header.resizeSection(column, width + HEADER_MARGIN_PX)

    def fill(self, cases: Sequence[Case]) -> None:
        """Update the rows; unchanged ones cost next to nothing."""
        with signals_blocked(self):
            if list(self._items) != [case.id for case in cases]:
                self.setSortingEnabled(False)
                self.clear()
                self._displayed.clear()
                self._items = {case.id: CaseItem(self, case.id) for case in cases}
                row_size = self._compute_row_size()
                for item in self._items.values():
                    item.setSizeHint(NAME, row_size)
                self._update_items(cases)  # before the view listens to each
                self.addTopLevelItems(list(self._items.values()))
                self.setSortingEnabled(True)
            else:
                self._update_items(cases)
            self._hide_filtered(cases, keep_active=True)
        self._select_active()
        self._thumbnail_timer.start()

    def apply_filter(self, name: str) -> None:
        """Show the cases of one of the ``FILTERS``."""
        self._filter_name = name
        self._hide_filtered(self._get_cases())
        self._thumbnail_timer.start()

    def highlight_active(self, case: ActiveCase | None) -> None:
        """Select the row of the active case and scroll to it."""
        self._select_active()
        item = self._items.get(case.id) if case is not None else None
        if item is not None:
            item.setHidden(False)  # also if it was opened from elsewhere
            self.scrollToItem(item)

    def _select_active(self) -> None:
        """Select the row of the active case; its name is bold, also while another is selected."""
        case = self.session.case
        active = self._items.get(case.id) if case is not None else None
        with signals_blocked(self):
            self.setCurrentItem(active)
            previous = self._items.get(self._bold_case_id)
            self._bold_case_id = active.case_id if active is not None else ""
            for item in (previous, active):
                if item is not None:
                    font = item.font(NAME)
                    font.setBold(item is active)
                    item.setFont(NAME, font)

    # ---- Keys and mouse ----------------------------------------------------------------------

    def keyboardSearch(self, search: str) -> None:  # noqa: N802 (Qt's name)
        """Ignore letters: they must not select another case."""

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 (Qt's name)
        """Move with the arrows, open with Enter, rename with F2; leave other keys to the window."""
        item = self.currentItem()
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and item is not None:
            self.case_chosen.emit(item.case_id)
        elif event.key() == Qt.Key.Key_F2 and item is not None:
            self.rename_requested.emit(item.case_id)
        elif event.key() in LIST_KEYS:
            super().keyPressEvent(event)
        else:
            event.ignore()

    def event(self, event: QEvent) -> bool:
        """Open the menu of the selected row with the menu key."""
        if (
            event.type() == QEvent.Type.ContextMenu
            and event.reason() == QContextMenuEvent.Reason.Keyboard
            and (item := self.currentItem()) is not None
        ):
            self.customContextMenuRequested.emit(self.visualItemRect(item).center())
            return True
        return bool(super().event(event))

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802 (Qt's name)
        """Select with the left button only: a right click opens the menu of a row."""
        if event.button() == Qt.MouseButton.LeftButton:
            super().mousePressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:  # noqa: N802 (Qt's name)
        """Select with the left button only."""
        if event.button() == Qt.MouseButton.LeftButton:
            super().mouseReleaseEvent(event)

    def focusOutEvent(self, event: QFocusEvent) -> None:  # noqa: N802 (Qt's name)
        """Select the active case again after moving with the arrow keys."""
        super().focusOutEvent(event)
        if event.reason() != Qt.FocusReason.PopupFocusReason:
            self._select_active()

    # ---- Rows --------------------------------------------------------------------------------

    def _prefetch(self) -> None:
        """Preload the case in the row below and the one suggested next."""
        active_case = self.session.case
        if active_case is None or (item := self._items.get(active_case.id)) is None:
            return
        next_item = self.itemBelow(item)
        case_ids = [next_item.case_id] if next_item is not None else []
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
        """Adapt columns and pictures, and draw the thumbnails of rows that become visible."""
        super().resizeEvent(event)
        was_narrow = self._is_narrow
        self._resize_columns()
        self._resize_pictures()
        if was_narrow != self._is_narrow:
            self._displayed.clear()
            self._update_items(self._get_cases())
        case = self.session.case
        if case is not None and (item := self._items.get(case.id)) is not None:
            self.scrollToItem(item)
        self._thumbnail_timer.start()

    def _resize_pictures(self) -> None:
        """Show small pictures in a low list, so that several rows are visible."""
        size = ICON_SIZES_PX[self.height() >= LOW_PX]
        if self.iconSize().height() == size:
            return
        self.setIconSize(QSize(size, size))
        row_size = self._compute_row_size()
        with signals_blocked(self.model()):
            for item in self._items.values():
                item.setSizeHint(NAME, row_size)
        self.scheduleDelayedItemsLayout()

    def _compute_row_size(self) -> QSize:
        height = max(self.iconSize().height(), self.fontMetrics().height())
        return QSize(0, height + ROW_MARGIN_PX)

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
                case.name,
                case.status,
                case.split,
                (summary.dice_text, summary.dice_tip, summary.older_run),
                summary.suggestion,
                id(summary.thumbnail),
            )
            sort_keys = compute_sort_keys(number, case, summary)
            if self._displayed.get(case.id) != displayed:
                self._displayed[case.id] = displayed
                changed_rows.append((item, case, summary))
            has_moved |= sort_keys != item.sort_keys
            item.sort_keys = sort_keys
        if not changed_rows and not has_moved:
            return
        active_item = self._find_visible_active_item() if has_moved else None
        # Otherwise Qt would resize columns and re-sort after each changed text.
        is_bulk = has_moved or len(changed_rows) > MAX_SINGLE_UPDATES
        if is_bulk:
            self.setSortingEnabled(False)
        with signals_blocked(self.model()) if is_bulk else contextlib.nullcontext():
            for row in changed_rows:
                update_item(*row, is_narrow=self._is_narrow)
        if is_bulk and self.topLevelItemCount():
            last_index = self.model().index(self.topLevelItemCount() - 1, DICE)
            self.model().dataChanged.emit(self.model().index(0, NAME), last_index)
        if is_bulk:
            self.setSortingEnabled(True)
        if active_item is not None:  # the case that is worked on stays in view
            self.scrollToItem(active_item)

    def _find_visible_active_item(self) -> QTreeWidgetItem | None:
        """Return the row of the active case if the user can see it."""
        case = self.session.case
        item = self._items.get(case.id) if case is not None else None
        if item is None or not self.viewport().rect().intersects(self.visualItemRect(item)):
            return None
        return item

    def _hide_filtered(self, cases: Sequence[Case], *, keep_active: bool = False) -> None:
        """Hide the rows that the filter excludes.

        With ``keep_active``, the active case stays in view although its status has changed.
        """
        is_shown = FILTERS[self._filter_name]
        active = self.session.case.id if keep_active and self.session.case is not None else ""
        for case in cases:
            item = self._items[case.id]
            is_hidden = not is_shown(case) and (case.id != active or item.isHidden())
            if item.isHidden() != is_hidden:
                item.setHidden(is_hidden)

    def _on_sort_changed(self, column: int, _: Qt.SortOrder) -> None:
        self.sort_column = column
        self._resize_columns()
        self._thumbnail_timer.start()

    def _request_thumbnails(self) -> None:
        """Request the thumbnails of visible rows and of as many rows below."""
        case_ids: list[str] = []
        item = self.itemAt(0, 0)
        n_rows = 2 * (self.viewport().height() // max(self.sizeHintForRow(0), 1) + 1)
        while item is not None and len(case_ids) < n_rows:
            case_ids.append(item.case_id)
            item = self.itemBelow(item)
        self.summaries.request_thumbnails(case_ids)
