"""Manual channel assignment, skipped scans and exports in the real window."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.dialogs import answer_dialog
from helpers.dicom_files import make_voxels, save_series
from helpers.nifti_files import save_nifti
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QDialogButtonBox, QFileDialog, QMessageBox

from napari_dycon.exports import registry as exports
from napari_dycon.exports.result import ExportResult
from napari_dycon.project.importing.channel_matching import candidates_from
from napari_dycon.project.models import classes_from_names
from napari_dycon.project.store import Project
from napari_dycon.widgets.dialogs.channel_assignment import ChannelDialog
from napari_dycon.widgets.dialogs.export import ExportDialog
from napari_dycon.widgets.dialogs.new_project import NewProjectDialog

pytestmark = pytest.mark.gui
OK = QDialogButtonBox.StandardButton.Ok


def make_files(folder: Path, *names: str) -> list[Path]:
    return [
        save_nifti(
            folder / f"{name}.nii.gz",
            np.random.default_rng(n).normal(size=(4, 5, 6)).astype(np.float32),
        )
        for n, name in enumerate(names)
    ]


@pytest.fixture
def open_channel_project(shared_window: Any, tmp_path: Path, qtbot: Any) -> Any:
    """A window with a project of two channels and one case."""
    project = Project.create(tmp_path / "p", channels=["t1", "flair"])
    project.add_cases([make_files(tmp_path / "old", "zoe_t1", "zoe_flair")], ids=["zoe"])
    viewer, panel = shared_window
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    return viewer, panel


def test_the_dialog_requires_all_choices(
    needs_display: None, tmp_path: Path, qtbot: Any, screenshot_folder: Path
) -> None:
    found = make_files(tmp_path, "p1_t1", "p1_flair", "p2_t1", "odd")
    dialog = ChannelDialog(None, ["t1", "flair"], candidates_from(found))
    qtbot.addWidget(dialog)
    dialog.show()
    ok = dialog.buttons.button(OK)

    def says(words: str) -> None:
        assert dialog.reason_label.text().startswith(words), dialog.table.rowCount()
        assert ok.isEnabled() is (not words or words[0].isdigit())

    says("p2 has no image for flair, and 2 more are missing")
    assert [scan.name for scan in dialog.scans] == ["p1"]
    dialog.grab().save(str(screenshot_folder / "channels.png"))
    dialog.table.selectRow(2)
    dialog.remove_button.click()
    assert dialog.table.rowCount() == 2
    says("p2 has no image for flair.")

    # A click opens the list.
    place = dialog.table.visualItemRect(dialog.table.item(1, 2)).center()
    qtbot.mouseClick(dialog.table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    (choice,) = dialog.table.viewport().findChildren(QComboBox)
    qtbot.waitUntil(lambda: choice.view().isVisible(), timeout=20_000)
    assert choice.currentText() == "select…"
    assert choice.count() == 5
    choice.setCurrentIndex(choice.findText("p1_flair.nii.gz"))
    choice.hidePopup()
    choice.activated.emit(choice.currentIndex())
    says("p1_flair.nii.gz is assigned twice, to p1 and p2")
    dialog.assign_image(1, 1, found[3])
    says("2 cases.")
    assert [(scan.name, scan.images) for scan in dialog.scans] == [
        ("p1", tuple(found[:2])), ("p2", (found[2], found[3])),
    ]  # fmt: skip
    dialog.table.item(1, 0).setText("P1")
    says("Two cases are named p1")
    dialog.table.item(1, 0).setText(" ")
    says("A case has no name")
    dialog.table.item(1, 0).setText("p2")
    dialog.add_button.click()
    says("case 3 has no image for t1")
    dialog.table.selectAll()
    dialog.remove_button.click()
    says("There is no case yet")


def test_files_can_be_added_from_another_folder(
    needs_display: None, tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialog = ChannelDialog(
        None, ["t1", "flair"], candidates_from(make_files(tmp_path / "a", "p1_t1"))
    )
    qtbot.addWidget(dialog)
    dialog.show()
    (other,) = make_files(tmp_path / "b", "flair of p1")
    chosen = [str(other)]
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *_: (chosen, ""))
    dialog.more_button.click()
    dialog.assign_image(0, 1, other)
    dialog.table.selectRow(1)
    dialog.remove_button.click()
    assert dialog.buttons.button(OK).isEnabled()
    chosen[:] = [str(tmp_path / "gone.nii.gz")]
    answer_dialog(lambda box: box.accept(), QMessageBox)
    dialog.more_button.click()
    assert dialog.buttons.button(OK).isEnabled()


def test_files_are_added_with_their_channels(
    open_channel_project: Any,
    tmp_path: Path,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
    save_screenshot: Callable[[Any, str], None],
) -> None:
    viewer, panel = open_channel_project
    session = panel.session
    chosen = make_files(tmp_path / "new", "anna_t1", "anna_flair", "bert_a", "bert_b")
    monkeypatch.setattr(
        QFileDialog, "getOpenFileNames", lambda *_: ([str(path) for path in chosen], "")
    )
    (add, _folder, *_) = panel.data.add_button.menu().actions()
    answer_dialog(lambda dialog: dialog.reject(), ChannelDialog)
    add.trigger()
    assert len(session.project.cases) == 1

    def fill(dialog: Any) -> None:
        assert not dialog.buttons.button(OK).isEnabled()
        dialog.assign_image(1, 0, chosen[3])
        dialog.assign_image(1, 1, chosen[2])
        save_screenshot(viewer, "add-channels")
        dialog.buttons.button(OK).click()

    answer_dialog(fill, ChannelDialog)
    add.trigger()
    qtbot.waitUntil(lambda: len(session.project.cases) == 3, timeout=20_000)
    assert session.project.image_paths("bert") == [chosen[3], chosen[2]]

    # The same once more: what is there is not added again.
    said: list[tuple[str, str]] = []
    session.message.connect(lambda *message: said.append(message))
    chosen[2:] = make_files(tmp_path / "new", "carl_t1", "carl_flair")
    answer_dialog(lambda dialog: dialog.buttons.button(OK).click(), ChannelDialog)
    add.trigger()
    qtbot.waitUntil(lambda: len(session.project.cases) == 4, timeout=20_000)
    qtbot.waitUntil(
        lambda: ("info", "anna was left out: it is already case anna.") in said, timeout=20_000
    )
    answer_dialog(lambda dialog: dialog.buttons.button(OK).click(), ChannelDialog)
    notification_manager.records.clear()
    add.trigger()
    qtbot.waitUntil(lambda: said[-1][0] == "error", timeout=20_000)
    assert "Nothing was added" in said[-1][1]


def test_a_folder_per_patient_is_added_to_a_project_with_channels(
    open_channel_project: Any, tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _viewer, panel = open_channel_project
    session = panel.session
    for number, patient in enumerate(("anna", "bert", "carl")):
        for channel in ("T1", "flair")[: 1 if patient == "bert" else 2]:
            place = tmp_path / "in" / patient / channel
            save_series(place, make_voxels((7, 6, 7)) + number, description=f"ax {channel}")
    (tmp_path / "in" / "carl" / "T1" / "IM0004.dcm").unlink()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "in"))
    said: list[tuple[str, str]] = []
    session.message.connect(lambda *message: said.append(message))
    asked: list[str] = []

    def consent(box: Any) -> None:
        asked.append(box.text())
        box.buttons()[0].click()

    answer_dialog(consent, QMessageBox)
    (_add, folder, *_) = panel.data.add_button.menu().actions()
    folder.trigger()
    qtbot.waitUntil(lambda: len(session.project.cases) == 3, timeout=30_000)
    assert [case.id for case in session.project.cases] == ["zoe", "anna", "carl"]
    assert [case.resampled for case in session.project.cases] == [False, False, True]
    assert asked[0].startswith("carl was left out: ")
    assert any(
        level == "warning" and text.startswith("bert was left out: Folder bert has no scans for")
        for level, text in said
    )

    make_files(tmp_path / "other", "x", "y")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "other"))
    folder.trigger()
    qtbot.waitUntil(lambda: said[-1][0] == "error", timeout=20_000)
    assert "The folder other has no case with all channels" in said[-1][1]
    assert "Found: x.nii.gz, y.nii.gz." in said[-1][1]


def test_a_project_is_created_from_manually_assigned_files(
    shared_window: Any, tmp_path: Path, qtbot: Any, screenshot_folder: Path
) -> None:
    found = make_files(tmp_path / "in", "a", "b", "c", "d")
    _viewer, panel = shared_window

    def fill(dialog: Any) -> None:
        dialog.channels.setText("dwi")
        assert not dialog.should_assign_channels
        assert not dialog._assign_checkbox.isEnabled()
        dialog.channels.setText("dwi, adc")
        dialog._assign_checkbox.setChecked(True)
        dialog.grab().save(str(screenshot_folder / "new-project-by-hand.png"))
        answer_dialog(assign, ChannelDialog)
        dialog.buttons.button(OK).click()

    def assign(dialog: Any) -> None:
        dialog.add_button.click()
        for n, path in enumerate(found):
            dialog.assign_image(n // 2, n % 2, path)
        dialog.table.item(0, 0).setText("first")
        dialog.buttons.button(OK).click()

    answer_dialog(fill, NewProjectDialog)
    panel.data.open_path(tmp_path / "in")
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=30_000)
    project = panel.session.project
    assert project.channels == ["dwi", "adc"]
    assert [case.id for case in project.cases] == ["first", "case 2"]
    assert project.image_paths("first") == found[:2]


def test_one_export_at_a_time_with_progress(
    open_channel_project: Any, tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _viewer, panel = open_channel_project
    session = panel.session
    go_on = threading.Event()

    def slow(*_: Any, on_progress: Any, **__: Any) -> ExportResult:
        on_progress(1, 4, "zoe")
        assert go_on.wait(20)
        return ExportResult(tmp_path / "out", [tmp_path / "out" / "zoe.nii.gz"])

    monkeypatch.setattr(exports, "export", slow)
    said: list[tuple[str, str]] = []
    session.message.connect(lambda *message: said.append(message))
    session.export("nifti", tmp_path / "out")
    qtbot.waitUntil(
        lambda: [bar.n for bar in panel.task_runner.bars.shown] == [250], timeout=20_000
    )
    assert [bar.desc for bar in panel.task_runner.bars.shown] == ["Exporting: zoe: "]
    panel.data.export_button.click()  # no dialog that is filled in for nothing
    assert said[-1] == ("error", "An export is already running. Wait until it has finished.")
    go_on.set()
    qtbot.waitUntil(lambda: said[-1][1].startswith("Exported zoe.nii.gz"), timeout=20_000)
    assert not panel.task_runner.bars.shown
    go_on.clear()
    monkeypatch.undo()
    session.export("nifti", tmp_path / "out")  # nothing to export: the next one may start
    qtbot.waitUntil(lambda: "Label or predict some first" in said[-1][1], timeout=20_000)
    assert not session.import_export.is_exporting


def test_many_structures_fit_a_small_screen(
    needs_display: None, tmp_path: Path, qtbot: Any, screenshot_folder: Path
) -> None:
    names = [f"structure {n}" for n in range(1, 31)]
    project = Project.create(tmp_path / "p", classes=classes_from_names(names))
    dialog = ExportDialog(None, project)
    qtbot.addWidget(dialog)
    dialog.show()
    dialog.format_.setCurrentIndex(dialog.format_.findData("dicom-seg"))
    qtbot.wait(50)
    assert dialog.frameGeometry().height() <= 600
    assert dialog.buttons.isVisible()
    last = dialog.terms[30]
    dialog._scroll.ensureWidgetVisible(last)
    assert not last.visibleRegion().isEmpty()
    dialog.grab().save(str(screenshot_folder / "export-many.png"))
    dialog.format_.setCurrentIndex(dialog.format_.findData("report"))
    qtbot.wait(50)
    assert dialog.height() < 300
