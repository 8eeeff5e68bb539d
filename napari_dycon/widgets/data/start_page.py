"""Shown while no project is open: how to begin, and the projects opened last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.application.projects.recent_projects import (
    add_recent_project,
    clear_recent_projects,
    list_recent_projects,
)
from napari_dycon.core.text import escape_control_characters, escape_rich_text
from napari_dycon.project.store import Project
from napari_dycon.session import Session
from napari_dycon.widgets.window.helpers import make_button, make_hint_label, make_plain_label


class RecentList(QListWidget):
    """List that a click or Enter opens; letters are left to the window."""

    def keyboardSearch(self, search: str) -> None:  # noqa: N802 (Qt's name)
        """Ignore letters."""


class StartPage(QWidget):
    """Buttons to begin with, and a list of recent projects.

    Parameters
    ----------
    open_path : opens a project or a folder of scans
    choose_folder : asks for a folder and opens it
    create_project : asks for scans, labels and names of a new project
    create_sample : makes the sample project
    """

    def __init__(
        self,
        session: Session,
        open_path: Callable[[Path], object],
        choose_folder: Callable[[], object],
        create_project: Callable[[], object],
        create_sample: Callable[[], object],
    ) -> None:
        super().__init__()
        self.session = session
        self._open_path = open_path
        self.open_button = make_button(
            "Open scans or a project…",
            "Choose a folder of scans (NIfTI, NRRD, MetaImage or DICOM) or a project folder",
            choose_folder,
        )
        self.new_button = make_button(
            "New project…",
            "Create a project from scans, with existing labels or several channels",
            create_project,
        )
        self.sample_button = make_button(
            "Sample project…",
            "Make a project of synthetic scans, to try the program without own data",
            create_sample,
        )
        self.recent_label = make_plain_label("Recent projects", wrap=False)
        self.clear_button = QToolButton()
        self.clear_button.setText("Clear")
        self.clear_button.setToolTip("Forget the recent projects; no file is changed")
        self.clear_button.clicked.connect(self._clear)
        self.list = RecentList()
        self.list.setAccessibleName("Recent projects")
        self.list.setVerticalScrollMode(QListWidget.ScrollMode.ScrollPerPixel)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.list.setMinimumHeight(40)
        self.list.itemClicked.connect(self._open_item)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(
            make_hint_label("Open a folder of scans to begin. The scans are never changed.")
        )
        layout.addWidget(self.open_button)
        buttons = QHBoxLayout()
        buttons.setSpacing(4)
        buttons.addWidget(self.new_button)
        buttons.addWidget(self.sample_button)
        layout.addLayout(buttons)
        recent_row = QHBoxLayout()
        recent_row.addWidget(self.recent_label, 1)
        recent_row.addWidget(self.clear_button)
        layout.addLayout(recent_row)
        layout.addWidget(self.list, 1)
        self._show([])
        session.project_changed.connect(self._on_project_changed)
        self._read()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 (Qt's name)
        """Open the selected project with Enter."""
        item = self.list.currentItem()
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and item is not None:
            self._open_item(item)
        else:
            super().keyPressEvent(event)

    def _read(self) -> None:
        """Read the list in the background, since a drive may be slow to say what exists."""
        self.session.task_runner.submit(list_recent_projects, self._show, self.session.report_error)

    def _on_project_changed(self, project: Project | None) -> None:
        if project is None:
            self._read()
        else:
            path = project.path
            self.session.task_runner.submit(
                lambda: add_recent_project(path), lambda _: None, self.session.report_error
            )

    def _show(self, paths: list[Path]) -> None:
        self.list.clear()
        for path in paths:
            name, folder = (escape_control_characters(text) for text in (path.name, path.parent))
            item = QListWidgetItem(f"{name}  —  {folder}")
            item.setData(Qt.ItemDataRole.UserRole, str(path))
            item.setToolTip(escape_rich_text(path))
            self.list.addItem(item)
        for widget in (self.recent_label, self.clear_button, self.list):
            widget.setEnabled(bool(paths))
        self.recent_label.setText("Recent projects" if paths else "No recent projects")

    def _open_item(self, item: QListWidgetItem) -> None:
        self._open_path(Path(item.data(Qt.ItemDataRole.UserRole)))

    def _clear(self) -> None:
        self.session.task_runner.submit(
            clear_recent_projects, lambda _: self._show([]), self.session.report_error
        )
