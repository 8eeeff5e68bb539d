"""The window of the program itself, where napari's menus, title and questions are adapted.

In a window that was opened as napari, all of that stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari.viewer import Viewer
from qtpy.QtCore import QObject
from qtpy.QtGui import QAction, QKeySequence
from qtpy.QtWidgets import QMenu

from napari_dycon.core.text import escape_control_characters
from napari_dycon.project.store import Project
from napari_dycon.widgets.layers.napari_internals import get_main_window, show_welcome

if TYPE_CHECKING:
    from napari_dycon.widgets.panel import DyconPanel

PROGRAM = "napari-dycon"
# Entries of napari's File menu that are of no use for scans, by their beginnings. Others open a
# file or a DICOM series without a project.
REMOVED_ENTRIES = ("New Image from Clipboard", "Open Files as Stack")
REPLACED_KEYS = ("Ctrl+N", "Ctrl+O")
NO_PROJECT_TEXT = "Open a folder of scans to begin."
NO_CASE_TEXT = "Select a case in the list."


class OwnWindow(QObject):
    """Adapts title, File menu, start screen and closing of the program's own window."""

    def __init__(self, viewer: Viewer, panel: DyconPanel) -> None:
        super().__init__(panel)
        self._viewer = viewer
        self._session = panel.session
        panel.is_own_window = True  # its own question is asked when it is closed
        main_window = get_main_window(viewer)
        self.actions = [
            self._make_action("&New Project…", "Ctrl+N", panel.data.create_project),
            self._make_action("&Open Scans or Project…", "Ctrl+O", panel.data.open_folder),
        ]
        main_window.addActions(self.actions)
        self._menu: QMenu = viewer.window.file_menu
        self._menu.aboutToShow.connect(self._arrange_menu)  # napari fills it again at times
        self._arrange_menu()
        self._session.project_changed.connect(self._on_project_changed)
        panel.destroyed.connect(self._disconnect)
        self._on_project_changed(self._session.project)

    def _make_action(self, text: str, key: str, on_triggered: Callable[[], object]) -> QAction:
        action = QAction(text, self)
        action.setShortcut(QKeySequence(key))
        action.triggered.connect(lambda _checked=False: on_triggered())
        return action

    def _arrange_menu(self) -> None:
        """Put the entries for projects first, and give them their keys."""
        menu = self._menu
        for action in list(menu.actions()):
            if action in self.actions:
                continue
            if action.text().replace("&", "").startswith(REMOVED_ENTRIES):
                menu.removeAction(action)
            elif action.shortcut().toString() in REPLACED_KEYS:
                action.setShortcut(QKeySequence())
        missing = [action for action in self.actions if action not in menu.actions()]
        if missing:
            first = next(iter(menu.actions()), None)
            menu.insertActions(first, missing)
            menu.insertSeparator(first)

    def _on_project_changed(self, project: Project | None) -> None:
        name = "" if project is None else f"{escape_control_characters(project.name)} – "
        self._viewer.title = f"{name}{PROGRAM}"
        keys = (
            ("Ctrl+O", "Open scans or a project"),
            ("Ctrl+N", "New project"),
            ("F1", "Keyboard shortcuts"),
        )
        show_welcome(self._viewer, NO_PROJECT_TEXT if project is None else NO_CASE_TEXT, keys)

    def _disconnect(self) -> None:
        self._session.project_changed.disconnect(self._on_project_changed)
