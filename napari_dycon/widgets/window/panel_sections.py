"""The list of cases and the tabs of the panel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QScrollArea, QSplitter, QTabWidget, QWidget

from napari_dycon.session import Session
from napari_dycon.widgets.window.wheel_guard import WheelGuard

LOW_PX = 430  # height below which the list of cases is a tab
HYSTERESIS_PX = 20  # so that a changed height of the row of tabs cannot change it back
SIZES_PX = (270, 470)
CASES_TAB = "Cases"


class PanelSections(QSplitter):
    """The list of cases above the tabs; in a low window it is the first tab.

    Beside a list of a few rows, each tab would otherwise show three rows of controls.
    """

    def __init__(
        self, session: Session, data: QWidget, sections: Sequence[tuple[QWidget, str]]
    ) -> None:
        super().__init__(Qt.Orientation.Vertical)
        self._session = session
        self._data = data
        self._sections = [section for section, _ in sections]
        self._scroll_areas = [make_scroll_area(section) for section in self._sections]
        self.tabs = QTabWidget()
        for scroll_area, (_, name) in zip(self._scroll_areas, sections, strict=True):
            self.tabs.addTab(scroll_area, name)
        self.addWidget(data)
        self.addWidget(self.tabs)
        self.setChildrenCollapsible(False)
        self.setSizes(SIZES_PX)
        # Widgets must not be moved while Qt is resizing them.
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._arrange)
        self._project_path: Path | None = None  # of the project shown
        session.project_changed.connect(self._on_project_changed)
        session.case_shown.connect(self._show_cases)

    @property
    def is_low(self) -> bool:
        """Whether the list of cases is a tab."""
        return bool(self.tabs.indexOf(self._data) >= 0)

    def show_section(self, section: QWidget) -> None:
        """Select the tab of a section."""
        self.tabs.setCurrentWidget(self._scroll_areas[self._sections.index(section)])

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 (Qt's name)
        """Move the list of cases if the height calls for it."""
        super().resizeEvent(event)
        self._timer.start()

    def _arrange(self) -> None:
        is_low = self.height() < LOW_PX + (HYSTERESIS_PX if self.is_low else 0)
        if is_low == self.is_low:
            return
        if is_low:
            self.tabs.insertTab(0, self._data, CASES_TAB)
            self._show_cases()
        else:
            self.tabs.removeTab(self.tabs.indexOf(self._data))
            self.insertWidget(0, self._data)
            self._data.show()  # tabs hide what they remove
            self.setSizes(SIZES_PX)

    def _on_project_changed(self, *_: object) -> None:
        """Begin another project with its first step."""
        project = self._session.project
        path = project.path if project is not None else None
        if path is not None and path != self._project_path:
            self.show_section(self._sections[0])
            self._project_path = path
        self._show_cases()

    def _show_cases(self, *_: object) -> None:
        """Select the list of cases while no case is shown: nothing else can be done then."""
        if self.is_low and self._session.case is None:
            self.tabs.setCurrentWidget(self._data)


def make_scroll_area(section: QWidget) -> QScrollArea:
    """Let a section scroll vertically where the window is too low for it."""
    scroll_area = QScrollArea()
    scroll_area.setWidgetResizable(True)
    scroll_area.setFrameShape(QScrollArea.Shape.NoFrame)
    scroll_area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll_area.setWidget(section)
    WheelGuard(section)  # owned by the section
    return scroll_area
