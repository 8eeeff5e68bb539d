"""Importing scans of every kind and exporting them in the real window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.dialogs import answer_dialog
from helpers.dicom_files import make_voxels, save_series
from qtpy.QtWidgets import QDialogButtonBox, QFileDialog, QMessageBox

from napari_dycon import io
from napari_dycon.project.store import Project
from napari_dycon.widgets.dialogs.export import ExportDialog
from napari_dycon.widgets.dialogs.new_project import NewProjectDialog

pytestmark = pytest.mark.gui


@pytest.fixture
def open_project(shared_window: Any, project: Project, qtbot: Any) -> Any:
    viewer, panel = shared_window
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    return viewer, panel


def test_irregular_dicom_series_are_added_after_consent(
    open_project: Any, tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _viewer, panel = open_project
    session = panel.session
    count = len(session.project.cases)
    save_series(tmp_path / "even" / "anna" / "t1", make_voxels())
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "even"))
    _, folder, *_ = panel.data.add_button.menu().actions()
    folder.trigger()
    qtbot.waitUntil(lambda: len(session.project.cases) == count + 1, timeout=20_000)
    session.show_case("anna")
    qtbot.waitUntil(lambda: session.case is not None and session.case.id == "anna", timeout=20_000)
    assert np.array_equal(np.sort(session.case.image.array, axis=None), np.arange(210))

    save_series(tmp_path / "uneven" / "bert" / "t1", make_voxels((7, 6, 7)))[3].unlink()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "uneven"))
    said: list[str] = []

    def cancel(box: Any) -> None:
        said.append(box.text())
        assert box.defaultButton() is box.button(QMessageBox.StandardButton.Cancel)
        box.button(QMessageBox.StandardButton.Cancel).click()

    answer_dialog(cancel, QMessageBox)
    folder.trigger()
    qtbot.waitUntil(lambda: len(said) == 1, timeout=20_000)
    assert "lacks 1 slice" in said[0]
    assert "--resample" not in said[0]
    qtbot.wait(300)
    assert len(session.project.cases) == count + 1

    answer_dialog(lambda box: box.buttons()[0].click(), QMessageBox)
    folder.trigger()
    qtbot.waitUntil(lambda: len(session.project.cases) == count + 2, timeout=20_000)
    assert session.project.read_image("bert").shape == (7, 6, 7)
    session.show_case("bert")
    qtbot.waitUntil(lambda: session.case.id == "bert", timeout=20_000)
    panel.layers.find_layer("label").data[3] = 1
    session.flush()
    session.show_case("anna")
    qtbot.waitUntil(lambda: session.case.id == "anna", timeout=20_000)
    session.show_case("bert")
    qtbot.waitUntil(lambda: session.case.id == "bert", timeout=20_000)
    assert (session.case.label == 1).sum() == 42


def test_export_prompts_for_the_options_of_the_format(
    open_project: Any, tmp_path: Path, qtbot: Any, save_screenshot: Callable[[Any, str], None]
) -> None:
    viewer, panel = open_project
    dialog = ExportDialog(panel.data, panel.session.project)
    dialog.show()
    shown: dict[str, list[bool]] = {}
    for index in range(dialog.format_.count()):
        dialog.format_.setCurrentIndex(index)
        terms = next(iter(dialog.terms.values()))
        shown[dialog.format_.itemData(index)] = [
            widget.isVisible() for widget in (dialog.mask_source, dialog.keep_identity, terms)
        ]
    assert shown["nifti"] == shown["nrrd"] == [True, False, False]
    assert shown["dicom-seg"] == [True, True, True]
    assert shown["report"] == shown["nnunet"] == [False, False, False]
    terms.setEditText("left atrium")
    terms.lineEdit().editingFinished.emit()
    chosen = terms.currentText()
    assert "atrium" in chosen.lower()
    terms.setEditText("no such thing")
    terms.lineEdit().editingFinished.emit()
    assert terms.currentText() == chosen
    dialog.close()

    def fill(dialog: Any) -> None:
        dialog.out.setText(str(tmp_path / "out"))
        dialog.mask_source.setCurrentIndex(1)
        qtbot.waitUntil(lambda: len(dialog.table.selected) == 3, timeout=20_000)
        save_screenshot(viewer, "export")
        dialog.buttons.button(QDialogButtonBox.StandardButton.Ok).click()

    answer_dialog(fill, ExportDialog)
    panel.data.export_button.click()
    qtbot.waitUntil(lambda: "Exported" in panel.message_label.text(), timeout=20_000)
    written = sorted((tmp_path / "out").glob("*.nii.gz"))
    assert written
    case = written[0].name.split(".")[0]
    project = panel.session.project
    assert np.array_equal(
        io.read_label(written[0], reference=project.read_image(case)).array,
        project.labels.read(case),
    )


def test_a_folder_of_patients_becomes_a_project_with_channels(
    shared_window: Any, tmp_path: Path, qtbot: Any
) -> None:
    _viewer, panel = shared_window
    for patient in ("anna", "bert"):
        for number, channel in enumerate(("t1", "t1ce", "flair")):

            def named(data: Any, _: int, channel: str = channel) -> None:
                data.SeriesDescription = f"ax {channel} 3mm"

            save_series(
                tmp_path / "scans" / patient / channel, make_voxels() * (number + 1), change=named
            )

    def fill(dialog: Any) -> None:
        dialog.channels.setText("flair, t1")
        dialog.classes.setText("lesion")
        dialog.buttons.button(QDialogButtonBox.StandardButton.Ok).click()

    answer_dialog(fill, NewProjectDialog)
    panel.data.open_path(tmp_path / "scans")
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=30_000)
    project = panel.session.project
    assert project.channels == ["flair", "t1"]
    assert [case.id for case in project.cases] == ["anna", "bert"]
    image = project.read_image("anna")
    assert [int(channel.max()) for channel in image.array] == [627, 209]


def test_ct_is_shown_with_ct_windows(
    shared_window: Any, tmp_path: Path, qtbot: Any, save_screenshot: Callable[[Any, str], None]
) -> None:
    def hounsfield(data: Any, _: int) -> None:
        data.RescaleSlope, data.RescaleIntercept = 5, -1024

    save_series(tmp_path / "scans" / "ct", make_voxels(), change=hounsfield)
    save_series(tmp_path / "scans" / "mr", make_voxels())
    viewer, panel = shared_window
    session, window_ = panel.session, panel.layers.intensity_window
    toolbar = panel.canvas_area.toolbar
    session.create_project(tmp_path / "p", tmp_path / "scans")
    qtbot.waitUntil(lambda: session.project is not None, timeout=20_000)
    session.show_case("mr")
    qtbot.waitUntil(lambda: session.case is not None, timeout=20_000)
    assert window_.preset_names() == ["Automatic", "Full range"]
    session.show_case("ct")
    qtbot.waitUntil(lambda: session.case.id == "ct", timeout=20_000)
    scan = panel.layers.find_layer("image")
    assert toolbar.preset.currentText() == "Soft tissue"
    assert tuple(scan.contrast_limits) == (-160, 240)
    toolbar.preset.setCurrentText("Brain")
    toolbar.preset.textActivated.emit("Brain")
    assert tuple(scan.contrast_limits) == (0, 80)
    save_screenshot(viewer, "ct-window")
    session.show_case("mr")
    qtbot.waitUntil(lambda: session.case.id == "mr", timeout=20_000)
    assert (
        tuple(panel.layers.find_layer("image").contrast_limits) == session.case.intensity_ranges[0]
    )
    session.show_case("ct")
    qtbot.waitUntil(lambda: session.case.id == "ct", timeout=20_000)
    assert tuple(panel.layers.find_layer("image").contrast_limits) == (0, 80)
