"""Menu of a case in the list: open, use, rename, remove, folder and details."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QAction, QMenu, QWidget

from napari_dycon.application.cases.details import CaseDetails, get_scan_folder, read_details
from napari_dycon.application.cases.split_choice import change_splits
from napari_dycon.application.prompts import UserPrompt
from napari_dycon.core.text import escape_control_characters, escape_rich_text
from napari_dycon.errors import UserError
from napari_dycon.project.editing.case_names import describe_name_error
from napari_dycon.project.models import Case, Split
from napari_dycon.project.store import Project
from napari_dycon.session import Session
from napari_dycon.widgets.dialogs.case_details import CaseDetailsDialog
from napari_dycon.widgets.dialogs.name_dialog import NameDialog, ask_name
from napari_dycon.widgets.dialogs.prompt import show_prompt
from napari_dycon.widgets.window.helpers import report_errors


class CaseMenu(QMenu):
    """Commands for one case; opening the menu does not open the case."""

    def __init__(
        self, parent: QWidget, session: Session, case: Case, open_case: Callable[[str], object]
    ) -> None:
        super().__init__(parent)
        self.session = session
        self.case = case
        self.setToolTipsVisible(True)
        # A right click selects no row, so the menu says whose it is.
        self.title_action = self.addAction(
            escape_control_characters(case.display_name).replace("&", "&&")
        )
        self.title_action.setEnabled(False)
        self.open_action = self._add("Open", lambda: open_case(case.id))
        self.setDefaultAction(self.open_action)
        self.split_action = self._add(
            "Use for validation only" if case.split == "train" else "Use for training",
            self._change_split,
        )
        self.addSeparator()
        self.rename_action = self._add("Rename…", self._rename)
        self.remove_action = self._add("Remove from project…", self._remove)
        self.addSeparator()
        self.folder_action = self._add("Show in folder", self._show_folder)
        self.details_action = self._add("Details…", self._show_details)
        project = session.require_project()
        for action in (self.split_action, self.rename_action):
            _disable(action, project.read_only_reason or "")
        _disable(self.remove_action, session.project_editor.edit_blocked_reason())

    def _add(self, text: str, command: Callable[[], object]) -> QAction:
        """Add an entry; errors of its command are shown as messages."""
        action: QAction = self.addAction(text)
        action.triggered.connect(lambda _checked=False: report_errors(self.session, command)())
        return action

    def _change_split(self) -> None:
        project = self.session.require_project()
        split: Split = "validation" if self.case.split == "train" else "train"
        for note in change_splits(project, {self.case.id: split}):
            self.session.message.emit(note.level, note.text)
        self.session.cases_changed.emit()

    def _rename(self) -> None:
        project = self.session.require_project()
        dialog = NameDialog(
            self.parentWidget(),
            "Rename case",
            "Name",
            lambda name: describe_name_error(name, self.case.id, project.cases),
            text=self.case.display_name,
            hint=f"The name is shown in this project. Files keep the name {self.case.id}, also "
            "when they are exported.",
        )
        name = ask_name(dialog)
        if name is not None:
            self.session.project_editor.rename_case(self.case.id, name)

    def _remove(self) -> None:
        editor = self.session.project_editor
        has_label = self.session.require_project().labels.path(self.case.id).exists()
        kept = "Its label and predictions are" if has_label else "Its predictions are"
        show_prompt(
            self.parentWidget(),
            self.session,
            UserPrompt(
                "Remove case",
                f"Remove {self.case.display_name} from this project?\n\n{kept} kept in the "
                "project folder, and Add… > Restore removed case… brings the case back. The scan "
                "itself is not touched.",
                (("Remove", lambda: editor.remove_case(self.case.id)),),
            ),
        )

    def _show_folder(self) -> None:
        folder = get_scan_folder(self.session.require_project(), self.case.id)
        if not folder.is_dir():
            raise UserError(
                f"The folder {folder} does not exist. Connect its drive, or move the scan back."
            )
        if not QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder))):
            raise UserError(f"This system has no program to open {folder}.")

    def _show_details(self) -> None:
        project: Project = self.session.require_project()
        parent = self.parentWidget()

        def show(details: CaseDetails) -> None:
            if self.session.project is project:
                CaseDetailsDialog(parent, details).show()

        self.session.task_runner.submit(
            lambda: read_details(project, self.case.id), show, self.session.report_error
        )


def _disable(action: QAction, reason: str) -> None:
    """Disable a menu entry and say why in its tooltip."""
    action.setEnabled(not reason)
    if reason:
        action.setToolTip(f"Unavailable: {escape_rich_text(reason)}")
