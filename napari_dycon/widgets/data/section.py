"""The *Data* section: open or create a project, and list its cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import napari
from npe2 import PluginManager
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QMenu,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

from napari_dycon.core.text import escape_control_characters, escape_rich_text
from napari_dycon.io.reading import SUFFIXES
from napari_dycon.project.case_counts import count_cases
from napari_dycon.project.importing.discovery import Scan
from napari_dycon.project.models import Case, Status
from napari_dycon.project.store import Project
from napari_dycon.session import Session
from napari_dycon.widgets.data.case_list import CaseList
from napari_dycon.widgets.data.case_menu import CaseMenu
from napari_dycon.widgets.data.case_rows import FILTERS
from napari_dycon.widgets.data.start_page import StartPage
from napari_dycon.widgets.dialogs.channel_assignment import ChannelDialog, inspect_files
from napari_dycon.widgets.dialogs.export import ExportDialog
from napari_dycon.widgets.dialogs.export_result import ExportResultDialog
from napari_dycon.widgets.dialogs.new_project import NewProjectDialog
from napari_dycon.widgets.dialogs.prompt import show_prompt
from napari_dycon.widgets.dialogs.removed_cases import RemovedCasesDialog
from napari_dycon.widgets.window.helpers import (
    make_button,
    make_plain_label,
    report_errors,
    set_enabled,
)

SCAN_FILTER = f"Scans ({' '.join(f'*{suffix}' for suffix in SUFFIXES)} *.dcm);;All files (*)"
SAMPLE_COMMAND = "napari-dycon.sample_project"
SPACING_PX = 4


class DataSection(QWidget):
    """Project buttons above the list of cases; clicking a case shows it."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        # A long name must not widen the panel; the tooltip shows all of it.
        self.title_label = QElidingLabel()
        self.title_label.setTextFormat(Qt.TextFormat.PlainText)
        self.title_label.setElideMode(Qt.TextElideMode.ElideMiddle)
        self.count_label = make_plain_label(wrap=False)
        self.open_button = make_button(
            "Open…", "Open a project, or create one from a folder of scans", self.open_folder
        )
        self.new_button = make_button(
            "New…",
            "Create a project from a folder of scans, with or without labels",
            self.create_project,
        )
        self.add_button = make_button("Add…", "Add scans to this project", lambda: None)
        menu = QMenu(self.add_button)
        menu.addAction("Scan files…", self._add_files)
        menu.addAction("Folder of scans or DICOM series…", self._add_folder)
        menu.addSeparator()
        menu.addAction("Restore removed case…", self._restore_case)
        self.add_button.setMenu(menu)
        self.export_button = make_button(
            "Export…",
            "Export masks, DICOM segmentations, a dataset, the model or a report",
            self._export,
        )
        self.case_list = CaseList(session)
        self.case_list.case_chosen.connect(self._on_case_chosen)
        self.case_list.rename_requested.connect(report_errors(session, self._rename_case))
        self.case_list.customContextMenuRequested.connect(self._show_context_menu)
        self.filter_box = QComboBox()
        self.filter_box.addItems(list(FILTERS))
        self.filter_box.setToolTip("Filter the list of cases")
        self.filter_box.setAccessibleName("Filter of the list of cases")
        self.filter_box.currentTextChanged.connect(self.case_list.apply_filter)

        self.start_page = StartPage(
            session, self.open_path, self.open_folder, self.create_project, self._create_sample
        )
        self._lay_out()
        session.project_changed.connect(self._on_project_changed)
        session.cases_changed.connect(self._update_cases)
        session.case_shown.connect(self._update_title)
        session.import_export.exported.connect(
            lambda result: ExportResultDialog(self, result).show()
        )
        session.import_export.created.connect(self._open_first_case)
        session.prompt_requested.connect(lambda question: show_prompt(self, session, question))
        self._on_project_changed(session.project)

    def _lay_out(self) -> None:
        buttons, title_row = QHBoxLayout(), QHBoxLayout()
        for item in (self.open_button, self.new_button, self.add_button, self.export_button):
            buttons.addWidget(item)
        title_row.setSpacing(SPACING_PX)
        title_row.addWidget(self.title_label, 1)
        title_row.addWidget(self.count_label)
        title_row.addWidget(self.filter_box)
        self.project_page = QWidget()
        project_layout = QVBoxLayout(self.project_page)
        project_layout.setContentsMargins(0, 0, 0, 0)
        project_layout.setSpacing(SPACING_PX)
        project_layout.addLayout(buttons)
        project_layout.addLayout(title_row)
        project_layout.addWidget(self.case_list, 1)
        self.pages = QStackedWidget()
        self.pages.addWidget(self.start_page)
        self.pages.addWidget(self.project_page)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.pages, 1)

    def open_path(self, path: Path) -> None:
        """Open a project folder, or offer to create a project from a folder of scans."""
        if Project.is_project(path) or path.name == "project.json":
            self.session.open_project(path)
        elif path.is_dir():
            self.create_project(images=path)
        else:
            self.session.message.emit(
                "error",
                f"{path} is not a folder; expected a project folder or a folder of scans.",
            )

    def open_folder(self) -> None:
        """Ask for a project or a folder of scans, and open it."""
        chosen = QFileDialog.getExistingDirectory(self, "Open a project or a folder of scans")
        if chosen:
            self.open_path(Path(chosen))

    def create_project(self, images: Path | None = None) -> None:
        """Ask for scans, labels and names of a new project, and create it."""
        dialog = NewProjectDialog(self, images, self.session.task_runner)
        accepted = dialog.exec()
        dialog.deleteLater()  # when the loop of events comes by; its answers are read before
        if not accepted:
            return
        answers, assign_by_hand = dialog.get_answers(), dialog.should_assign_channels
        create = report_errors(self.session, self.session.create_project)
        if not assign_by_hand:
            create(*answers)
        elif scans := self._assign_channels([answers[1]], answers[4] or []):
            create(*answers, scans=scans)

    def _add_files(self) -> None:
        chosen, _ = QFileDialog.getOpenFileNames(self, "Add scans", "", SCAN_FILTER)
        project = self.session.project
        if not chosen or project is None:
            return
        if len(project.channels) == 1:
            report_errors(self.session, self.session.add_cases)(chosen)
            return
        examples = report_errors(self.session, self.session.import_export.list_example_files)()
        if examples is None:  # the error was reported
            return
        paths = [Path(path) for path in chosen]
        if scans := self._assign_channels(paths, project.channels, examples):
            report_errors(self.session, self.session.add_scans)(scans)

    def _assign_channels(
        self,
        paths: Sequence[Path],
        channels: Sequence[str],
        examples: Sequence[Sequence[Path]] = (),
    ) -> list[Scan]:
        """Let the user assign images to channels; returns an empty list when cancelled."""
        candidates = inspect_files(paths, self.window())
        if candidates is None:
            return []
        dialog = ChannelDialog(self, channels, candidates, examples)
        scans = dialog.scans if dialog.exec() else []
        dialog.deleteLater()
        return scans

    def _add_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Add a folder of scans")
        if chosen:
            report_errors(self.session, self.session.add_cases)([chosen])

    def _export(self) -> None:
        project = self.session.project
        if self.session.import_export.is_exporting:
            report_errors(self.session, self.session.import_export.check_export)()
        elif project is not None:
            dialog = ExportDialog(self, project, self.session.task_runner)
            accepted = dialog.exec()
            dialog.deleteLater()  # when the loop of events comes by; its answers are read before
            if accepted:
                format_, out, options = dialog.get_answers()
                report_errors(self.session, self.session.export)(format_, out, **options)

    def _on_project_changed(self, project: Project | None) -> None:
        self.title_label.setText(escape_control_characters(project.name) if project else "")
        self.pages.setCurrentWidget(self.project_page if project else self.start_page)
        tip = f"{escape_control_characters(project.name)}\n{project.path}" if project else ""
        self.title_label.setToolTip(escape_rich_text(tip))
        blocked_reason = "" if project else "open or create a project first"
        set_enabled(self.export_button, blocked_reason)
        set_enabled(self.add_button, project.read_only_reason if project else blocked_reason)
        self._update_cases()

    def _update_cases(self) -> None:
        project = self.session.project
        self.case_list.fill(project.cases if project else [])
        self._update_title()

    def _update_title(self, *_: object) -> None:
        if (project := self.session.project) is not None:
            cases, counts = project.cases, count_cases(project.cases)
            read_only_note = " (read-only)" if project.read_only_reason else ""
            name = escape_control_characters(project.name)
            self.title_label.setText(f"{name}{read_only_note}")
            self.count_label.setText(counts.describe_labeled())
            self.count_label.setToolTip(counts.describe())
            text = f"{name}{read_only_note}: {counts.describe()}"
            hint = "" if self.session.case or not cases else "\nClick a case to open it"
            self.title_label.setToolTip(escape_rich_text(f"{text}\n{project.path}{hint}"))

    def _on_case_chosen(self, case_id: str) -> None:
        """Show a case, also again if its layer was removed or if it could not be read."""
        case = self.session.case
        is_shown = case is not None and case.id == case_id
        if not is_shown or self.session.label_writer is None:
            report_errors(self.session, self.session.show_case)(case_id)
        else:  # the user came back from another case, which may still be being read
            self.session.case_service.drop_request()

    def _open_first_case(self, project: Project) -> None:
        """Show the first case to label in a new project, or its first case."""
        cases = project.cases
        unlabeled = [case for case in cases if case.status is Status.UNLABELED]
        for case in (unlabeled or cases)[:1]:
            report_errors(self.session, self.session.show_case)(case.id)

    def _show_context_menu(self, position: QPoint) -> None:
        item = self.case_list.itemAt(position)
        project = self.session.project
        if item is None or project is None:
            return
        menu = self._make_case_menu(project.get_case(item.case_id))
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(self.case_list.viewport().mapToGlobal(position))

    def _make_case_menu(self, case: Case) -> CaseMenu:
        return CaseMenu(self, self.session, case, self._on_case_chosen)

    def _rename_case(self, case_id: str) -> None:
        menu = self._make_case_menu(self.session.require_project().get_case(case_id))
        menu.rename_action.trigger()
        menu.deleteLater()

    def _restore_case(self) -> None:
        project = self.session.require_project()
        dialog = RemovedCasesDialog(self, project.removed_cases.list())
        accepted, case_id = dialog.exec(), dialog.case_id
        dialog.deleteLater()
        if accepted and case_id:
            report_errors(self.session, self.session.project_editor.restore_case)(case_id)

    def _create_sample(self) -> None:
        """Run the command that makes the sample project; this package does not depend on it."""
        PluginManager.instance().commands.execute(SAMPLE_COMMAND, (napari.current_viewer(),))
