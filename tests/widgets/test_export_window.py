"""The export dialog shows what it is about to write, and its result opens the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.dialogs import answer_dialog
from helpers.dicom_files import OBLIQUE, make_voxels, save_series
from qtpy.QtCore import Qt
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QApplication, QDialogButtonBox, QMessageBox

from napari_dycon.exports.options import ExportOptions
from napari_dycon.exports.selection import plan_masks
from napari_dycon.project.models import Status
from napari_dycon.project.store import Project
from napari_dycon.widgets.dialogs.export import ExportDialog
from napari_dycon.widgets.dialogs.export_result import ExportResultDialog
from napari_dycon.widgets.dialogs.export_table import ExportTable

pytestmark = pytest.mark.gui
OK = QDialogButtonBox.StandardButton.Ok


@pytest.fixture
def mixed(project: Project, tmp_path: Path) -> Project:
    """scan-0 and scan-2 labeled, scan-1 drawn in part and predicted, scan-3 predicted, a series."""
    run = project.runs.create("dycon", {})
    for case in ("scan-1", "scan-3"):
        mask = np.zeros(project.read_grid(case).shape, np.uint8)
        mask[4:9, 4:9, 4:9] = 1
        heat = np.full(mask.shape, 0.25, np.float32)
        project.predictions.write(run.id, case, mask, heat, heat)
    save_series(tmp_path / "dicom" / "series", make_voxels(), directions=OBLIQUE)
    project.add_cases([tmp_path / "dicom" / "series"], ids=["series"])
    for case in ("scan-1", "series"):
        part = np.full(project.read_grid(case).shape, 255, np.uint8)
        part[2] = 0
        part[2, 2:4, 2:4] = 1
        project.labels.save(case, part)
    return project


@pytest.fixture
def panel(shared_window: Any, mixed: Project, qtbot: Any) -> Any:
    _viewer, panel = shared_window
    panel.session.open_project(mixed.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    return panel


def make_dialog(panel: Any, qtbot: Any) -> ExportDialog:
    dialog = ExportDialog(panel.data, panel.session.project, panel.session.task_runner)
    qtbot.addWidget(dialog)
    dialog.show()
    wait_for_masks(dialog, panel, qtbot)
    return dialog


def wait_for_masks(dialog: ExportDialog, panel: Any, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: dialog.table.tree.topLevelItemCount() == 7, timeout=20_000)
    qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=20_000)


def read_rows(dialog: ExportDialog) -> dict[str, tuple[str, str, bool | None]]:
    """Status, mask and check mark of each case; no check mark is ``None``."""
    rows = {}
    tree = dialog.table.tree
    for row in range(tree.topLevelItemCount()):
        item = tree.topLevelItem(row)
        state = item.data(0, Qt.ItemDataRole.CheckStateRole)
        checked = None if state is None else item.checkState(0) == Qt.CheckState.Checked
        rows[item.text(0)] = item.text(1), item.text(2), checked
    return rows


def check(dialog: ExportDialog, case: str) -> None:
    (item,) = dialog.table.tree.findItems(case, Qt.MatchFlag.MatchExactly)
    item.setCheckState(0, Qt.CheckState.Checked)


def test_the_table_shows_what_each_mask_is(panel: Any, qtbot: Any) -> None:
    panel.session.project.set_status("scan-2", Status.REVIEWED)
    dialog = make_dialog(panel, qtbot)
    rows = read_rows(dialog)
    nothing = ("unlabeled", "without label or prediction", None)
    assert rows == {
        "scan-0": ("labeled", "imported", True),
        "scan-1": ("in progress", "drawn in part, rest from prediction", False),
        "scan-2": ("reviewed", "imported", True),
        "scan-3": ("unlabeled", "prediction only", False),
        "scan-4": nothing,
        "scan-5": nothing,
        "series": ("in progress", "drawn in part", False),
    }
    assert dialog.table.summary_label.text() == "2 of 7 cases"
    _, _, options = dialog.get_answers()
    assert options["cases"] == ["scan-0", "scan-2"]
    assert not options["include_partial"]
    assert not options["include_unreviewed"]
    check(dialog, "scan-1")
    check(dialog, "scan-3")
    assert dialog.table.summary_label.text() == "4 of 7 cases; 2 from predictions"
    dialog.table.none_button.click()
    assert dialog.table.summary_label.text() == "0 of 7 cases"
    assert not dialog.buttons.button(OK).isEnabled()
    dialog.table.all_button.click()
    assert dialog.buttons.button(OK).isEnabled()
    assert len(dialog.table.selected) == 5
    dialog.mask_source.setCurrentIndex(dialog.mask_source.findData("predictions"))
    wait_for_masks(dialog, panel, qtbot)
    rows = read_rows(dialog)
    assert rows["scan-0"] == ("labeled", "without prediction", None)
    assert rows["scan-1"] == ("in progress", "prediction only", True)


def test_only_what_was_selected_is_exported(
    panel: Any, tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def fill(dialog: Any) -> None:
        qtbot.waitUntil(lambda: len(dialog.table.selected) == 2, timeout=20_000)
        dialog.out.setText(str(out))
        check(dialog, "scan-3")
        dialog.buttons.button(OK).click()

    answer_dialog(fill, ExportDialog)
    panel.data.export_button.click()
    qtbot.waitUntil(lambda: "Exported" in panel.message_label.text(), timeout=20_000)
    assert sorted(path.name for path in out.iterdir()) == [
        "origins.csv", "scan-0.nii.gz", "scan-2.nii.gz", "scan-3.nii.gz",
    ]  # fmt: skip
    (result,) = [w for w in QApplication.topLevelWidgets() if isinstance(w, ExportResultDialog)]
    opened: list[str] = []
    monkeypatch.setattr(
        QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()) or True
    )
    assert result.open_button is None
    result.folder_button.click()
    assert [Path(path) for path in opened] == [out]
    assert result.error_label.isHidden()
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda _url: False)
    result.folder_button.click()
    assert str(out) in result.error_label.text()
    result.close()


def test_a_half_drawn_scan_becomes_dicom_only_after_confirmation(
    panel: Any, tmp_path: Path, qtbot: Any
) -> None:
    dialog = make_dialog(panel, qtbot)
    dialog.out.setText(str(tmp_path / "out"))
    dialog.format_.setCurrentIndex(dialog.format_.findData("dicom-seg"))
    wait_for_masks(dialog, panel, qtbot)
    rows = read_rows(dialog)
    assert rows["scan-0"] == ("labeled", "without original DICOM series", None)
    assert rows["series"] == ("in progress", "drawn in part", False)
    assert not dialog.buttons.button(OK).isEnabled()
    check(dialog, "series")
    said: list[str] = []

    def answer(choice: str) -> None:
        def click(box: Any) -> None:
            said.append(f"{box.text()} {box.informativeText()}")
            assert box.defaultButton() is box.button(QMessageBox.StandardButton.Cancel)
            next(b for b in box.buttons() if b.text().replace("&", "") == choice).click()

        answer_dialog(click, QMessageBox)
        dialog.buttons.button(OK).click()

    answer("Cancel")
    assert dialog.isVisible()
    assert "series is drawn only in part." in said[0]
    assert "every voxel that is not drawn counts as not box" in said[0]
    answer("Export anyway")
    assert not dialog.isVisible()
    assert dialog.result() == ExportDialog.DialogCode.Accepted
    format_, _, options = dialog.get_answers()
    assert (format_, options["cases"]) == ("dicom-seg", ["series"])
    assert (options["include_partial"], options["include_unreviewed"]) == (True, False)


def test_the_result_of_a_report_opens_the_page(
    panel: Any, tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel.session.export("report", tmp_path / "out")

    def find() -> list[ExportResultDialog]:
        return [w for w in QApplication.topLevelWidgets() if isinstance(w, ExportResultDialog)]

    qtbot.waitUntil(lambda: len(find()) == 1, timeout=60_000)
    (result,) = find()
    opened: list[Path] = []
    monkeypatch.setattr(
        QDesktopServices, "openUrl", lambda url: opened.append(Path(url.toLocalFile())) or True
    )
    assert result.open_button is not None
    assert result.folder_button.text().replace("&", "") == "Show in folder"
    result.open_button.click()
    result.folder_button.click()
    assert opened == [tmp_path / "out" / "report.html", tmp_path / "out"]
    result.close()


def test_a_dialog_closed_while_it_checks_the_cases_does_no_harm(panel: Any, qtbot: Any) -> None:
    dialog = ExportDialog(panel.data, panel.session.project, panel.session.task_runner)
    dialog.show()
    assert dialog.table.summary_label.text() == "Checking the cases…"
    assert not dialog.buttons.button(OK).isEnabled()
    dialog.reject()
    dialog.deleteLater()
    qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=20_000)
    qtbot.wait(100)


def test_cases_are_listed_by_name(needs_display: None, qtbot: Any, mixed: Project) -> None:
    mixed.rename_case("scan-2", "Second patient")
    table = ExportTable()
    qtbot.addWidget(table)
    table.set_masks(plan_masks(mixed, ExportOptions()), "labels")
    (item,) = table.tree.findItems("Second patient", Qt.MatchFlag.MatchExactly)
    assert "scan-2" in item.toolTip(0)
    assert "scan-2" in [mask.case for mask in table.selected]
