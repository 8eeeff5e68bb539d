"""Data: open or make a project, and the list of its cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QMenu,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_dycon.core.text import escape_control_characters, escape_rich_text
from napari_dycon.io.reading import SUFFIXES
from napari_dycon.project.importing.discovery import Scan
from napari_dycon.project.store import Project
from napari_dycon.session import Session
from napari_dycon.widgets.data.case_list import FILTERS, CaseList
from napari_dycon.widgets.dialogs.channel_assignment import ChannelDialog, look_at
from napari_dycon.widgets.dialogs.export import ExportDialog
from napari_dycon.widgets.dialogs.new_project import NewProjectDialog
from napari_dycon.widgets.dialogs.prompt import ask
from napari_dycon.widgets.window.helpers import button, guarded, plain_label, set_enabled

SCAN_FILTER = f"Scans ({' '.join(f'*{suffix}' for suffix in SUFFIXES)} *.dcm);;All files (*)"
NOTHING_OPEN = "Open… a project, or make one with New…"


class DataSection(QWidget):
    """Project buttons above a list of cases; a click on a case shows it."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._asked = ""  # case that was clicked last
        self.title = plain_label(NOTHING_OPEN)
        self.title.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.open_button = button(
            "Open…", "Open a project, or a folder of scans to make one from", self._open
        )
        self.new_button = button(
            "New…", "Make a project from a folder of scans, with or without labels", self._new
        )
        self.add_button = button("Add…", "Add scans to this project", lambda: None)
        menu = QMenu(self.add_button)
        menu.addAction("Scan files…", self._add_files)
        menu.addAction("All scans of a folder, such as DICOM series…", self._add_folder)
        self.add_button.setMenu(menu)
        self.export_button = button(
            "Export…",
            "Write masks, DICOM segmentations, a data set, the network or a report",
            self._export,
        )
        self.list = CaseList(session)
        self.list.currentItemChanged.connect(self._clicked)
        self.list.itemClicked.connect(self._clicked_again)
        self.list.customContextMenuRequested.connect(self._menu)
        self.filter = QComboBox()
        self.filter.addItems(list(FILTERS))
        self.filter.setToolTip("Which cases the list shows")
        self.filter.currentTextChanged.connect(self.list.show_only)

        buttons = QHBoxLayout()
        for item in (self.open_button, self.new_button, self.add_button, self.export_button):
            buttons.addWidget(item)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        above = QHBoxLayout()
        above.addWidget(self.title, 1)
        above.addWidget(self.filter)
        layout.addLayout(above)
        layout.addWidget(self.list, 1)

        session.project_changed.connect(self._project_changed)
        session.cases_changed.connect(self._fill)
        session.case_shown.connect(self._count)
        session.prompt_requested.connect(lambda question: ask(self, session, question))
        self._project_changed(session.project)

    def open_path(self, path: Path) -> None:
        """Open a project folder, or offer to make a project from a folder of scans."""
        if Project.is_project(path) or path.name == "project.json":
            self.session.open_project(path)
        elif path.is_dir():
            self._new(images=path)
        else:
            self.session.message.emit(
                "error",
                f"{path} is no folder; expected a project's folder or one with scans in it.",
            )

    def _open(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Open a project or a folder of scans")
        if chosen:
            self.open_path(Path(chosen))

    def _new(self, images: Path | None = None) -> None:
        dialog = NewProjectDialog(self, images)
        accepted = dialog.exec()
        dialog.deleteLater()  # when the loop of events comes by; its answers are read before
        if not accepted:
            return
        answers, by_hand = dialog.answers(), dialog.by_hand
        create = guarded(self.session, self.session.create_project)
        if not by_hand:
            create(*answers)
        elif scans := self._by_hand([answers[1]], answers[4] or []):
            create(*answers, scans=scans)

    def _add_files(self) -> None:
        chosen, _ = QFileDialog.getOpenFileNames(self, "Add scans", "", SCAN_FILTER)
        project = self.session.project
        if not chosen or project is None:
            return
        if len(project.channels) == 1:
            guarded(self.session, self.session.add_cases)(chosen)
            return
        examples = guarded(self.session, self.session.import_export.list_example_files)()
        if examples is None:  # what is wrong was told
            return
        paths = [Path(path) for path in chosen]
        if scans := self._by_hand(paths, project.channels, examples):
            guarded(self.session, self.session.add_scans)(scans)

    def _by_hand(
        self,
        paths: Sequence[Path],
        channels: Sequence[str],
        examples: Sequence[Sequence[Path]] = (),
    ) -> list[Scan]:
        """Let a person say which image is which channel; nothing when they cancel."""
        pieces = look_at(paths, self.window())
        if pieces is None:
            return []
        dialog = ChannelDialog(self, channels, pieces, examples)
        scans = dialog.scans if dialog.exec() else []
        dialog.deleteLater()
        return scans

    def _add_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Add the scans of a folder")
        if chosen:
            guarded(self.session, self.session.add_cases)([chosen])

    def _export(self) -> None:
        project = self.session.project
        if self.session.import_export.is_exporting:
            guarded(self.session, self.session.import_export.check_export)()
        elif project is not None:
            dialog = ExportDialog(self, project)
            accepted = dialog.exec()
            dialog.deleteLater()  # when the loop of events comes by; its answers are read before
            if accepted:
                format_, out, options = dialog.answers()
                guarded(self.session, self.session.export)(format_, out, **options)

    def _project_changed(self, project: Project | None) -> None:
        self.title.setText(escape_control_characters(project.name) if project else NOTHING_OPEN)
        self.title.setToolTip(escape_rich_text(project.path) if project else "")
        why = "" if project else "open or make a project first"
        set_enabled(self.export_button, why)
        set_enabled(self.add_button, project.read_only_reason if project else why)
        self._fill()

    def _fill(self) -> None:
        project = self.session.project
        self.list.fill(project.cases if project else [])
        self._count()

    def _count(self, *_: object) -> None:
        if (project := self.session.project) is not None:
            cases = project.cases
            labeled = sum(case.status in ("labeled", "reviewed") for case in cases)
            hint = "" if self.session.case else "; click a case to show it"
            only = " (only shown)" if project.read_only_reason else ""
            name = escape_control_characters(project.name)
            self.title.setText(f"{name}{only}: {labeled} of {len(cases)} labeled{hint}")

    def _clicked(self, item: QTreeWidgetItem | None, _: QTreeWidgetItem | None) -> None:
        if item is not None:
            guarded(self.session, self.session.show_case)(item.text(0))

    def _clicked_again(self, item: QTreeWidgetItem, _: int) -> None:
        """Bring back a case whose layer was removed, or that could not be read before."""
        view = self.session.case
        shown = view is not None and view.id == item.text(0)
        if self._asked == item.text(0) and (not shown or self.session.label_writer is None):
            guarded(self.session, self.session.show_case)(item.text(0))
        self._asked = item.text(0)

    def _menu(self, place: object) -> None:
        item = self.list.itemAt(place)
        project = self.session.project
        if item is None or project is None:
            return
        case = project.get_case(item.text(0))
        other = "validation" if case.split == "train" else "train"
        menu = QMenu(self)
        text = "Keep for validation" if other == "validation" else "Use for training"
        menu.addAction(text).triggered.connect(
            lambda: guarded(self.session, self._set_split)(case.id, other)
        )
        menu.exec(self.list.viewport().mapToGlobal(place))

    def _set_split(self, case_id: str, split: str) -> None:
        if self.session.project is not None:
            self.session.project.set_split(case_id, split)  # type: ignore[arg-type]
            self.session.cases_changed.emit()
