"""Opening scans of every format in napari: layers, dialogs and errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from helpers.dicom_files import make_voxels, save_series
from helpers.nifti_files import save_nifti
from napari.components import ViewerModel
from napari.utils.notifications import NotificationSeverity, notification_manager
from npe2 import PluginManager
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QApplication,
    QDialogButtonBox,
    QMessageBox,
    QProgressDialog,
    QPushButton,
    QWidget,
)

from napari_dycon.errors import FileFormatError, IrregularSlicesError
from napari_dycon.io import read_volume, write_volume
from napari_dycon.project.store import Project
from napari_dycon.widgets.dialogs.progress import CancelledError, find_main_window, run_with_dialog
from napari_dycon.widgets.dialogs.series_selection import SeriesDialog
from napari_dycon.widgets.panel import DyconPanel
from napari_dycon.widgets.plugin import open_scans
from napari_dycon.widgets.plugin.readers import contains_dicom, get_reader

PLUGIN = "napari-dycon"


@pytest.fixture(autouse=True)
def registered_plugin() -> None:
    PluginManager.instance().discover()


def make_irregular(data: Any, number: int) -> None:
    """Move the last slices away."""
    z = data.ImagePositionPatient
    z[2] = float(z[2]) + (1.3 if number > 3 else 0)
    data.ImagePositionPatient = z


# ---- Without a window ------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".NII.GZ"])
def test_every_format_opens_in_millimeters(suffix: str, tmp_path: Path) -> None:
    first = save_nifti(tmp_path / "a.nii", np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    path = first.with_name(f"b.c{suffix}")
    volume = read_volume(first)
    if suffix in (".nhdr", ".mhd"):
        import SimpleITK as sitk  # noqa: N813

        sitk.WriteImage(sitk.ReadImage(str(first)), str(path))
    else:
        write_volume(volume.array, reference=volume, path=path)
    (layer,) = ViewerModel().open(path, plugin=PLUGIN)
    assert np.array_equal(layer.data, volume.array)
    assert layer.name == "b.c"
    assert np.allclose(layer.scale, volume.spacing_mm)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("superior", "posterior", "left")
    assert layer.metadata["napari_dycon"]["source"].path == path


def test_a_series_opens_by_its_folder_and_by_a_file(tmp_path: Path) -> None:
    files = save_series(tmp_path / "scan", make_voxels())
    for path in (tmp_path, tmp_path / "scan", files[2]):
        (layer,) = ViewerModel().open(path, plugin=PLUGIN)
        assert layer.data.shape == (5, 6, 7)
        assert layer.metadata["napari_dycon"]["source"].files == tuple(files)


def test_three_sagittal_slices_are_not_read_as_rgb(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (3, 64, 64)).astype(np.uint8)
    path = save_nifti(tmp_path / "a.nii", array, np.diag([5.0, 1, 1, 1]))
    (layer,) = ViewerModel().open(path, plugin=PLUGIN)
    assert (layer.data.shape, layer.rgb) == ((64, 64, 3), False)


def test_other_files_are_left_to_other_readers(tmp_path: Path, project: Project) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "pictures" / "more").mkdir(parents=True)
    for number in range(200):
        (tmp_path / "pictures" / "more" / f"{number}.png").write_bytes(b"\x89PNG")
    begun = time.perf_counter()
    assert get_reader(str(tmp_path / "notes.txt")) is None
    assert get_reader(str(tmp_path / "pictures")) is None
    assert get_reader([]) is None
    assert get_reader(str(project.path)) is None  # a project needs a window
    assert time.perf_counter() - begun < 0.5


def test_dicom_is_found_without_names_and_below_folders(tmp_path: Path) -> None:
    files = save_series(tmp_path / "a" / "b" / "c", make_voxels())
    for file in files:
        file.rename(file.with_suffix(""))
    assert contains_dicom(tmp_path / "a" / "b" / "c")
    assert contains_dicom(tmp_path / "a" / "b")
    assert contains_dicom(tmp_path / "a")
    assert not contains_dicom(tmp_path)  # further down than anybody looks
    assert get_reader(str(tmp_path / "a")) is not None


def test_several_series_are_listed_in_the_error(tmp_path: Path) -> None:
    save_series(tmp_path / "a", make_voxels())
    save_series(tmp_path / "b", make_voxels((4, 8, 8)))
    with pytest.raises(FileFormatError, match=r"contains 2 series: .*8 × 8 × 4 voxels"):
        ViewerModel().open(tmp_path, plugin=PLUGIN)


def test_irregular_series_are_an_error(tmp_path: Path) -> None:
    save_series(tmp_path, make_voxels((8, 6, 7)), change=make_irregular)
    with pytest.raises(IrregularSlicesError, match="irregular slices"):
        ViewerModel().open(tmp_path, plugin=PLUGIN)


def test_the_intensity_range_excludes_outliers() -> None:
    array = np.random.default_rng(0).normal(100, 10, (60, 200, 200)).astype(np.float32)
    array[5, 5, 5] = 1e6
    low, high = open_scans.compute_intensity_range(array)
    assert 60 < low < 90
    assert 110 < high < 140
    dark = np.zeros((8, 8, 8), np.uint8)
    dark[1, 2, 3] = 7
    assert open_scans.compute_intensity_range(dark) == (0.0, 7.0)


# ---- In a window -----------------------------------------------------------------------------


@pytest.fixture
def viewer(needs_display: None, make_napari_viewer: Callable[..., Any], qtbot: Any) -> Any:
    made = make_napari_viewer(show=True)
    made.window._qt_window.resize(1000, 700)
    qtbot.waitUntil(lambda: find_main_window() is not None)
    notification_manager.records.clear()
    return made


def act_when_shown(kind: type[QWidget], act: Callable[[Any], None]) -> list[Any]:
    """Do something with the dialog of a kind as soon as it is shown; the list holds it then."""
    met: list[Any] = []
    timer = QTimer(QApplication.instance())

    def look() -> None:
        widget = QApplication.activeModalWidget()
        if isinstance(widget, kind):
            timer.stop()
            timer.deleteLater()
            met.append(widget)
            act(widget)

    timer.timeout.connect(look)
    timer.start(20)
    return met


def list_notifications(severity: NotificationSeverity) -> list[str]:
    return [n.message for n in notification_manager.records if n.severity == severity]


def save_three_series(folder: Path) -> None:
    def named(name: str, modality: str = "CT") -> Callable[[Any, int], None]:
        def change(data: Any, _: int) -> None:
            data.SeriesDescription, data.Modality = name, modality

        return change

    save_series(
        folder / "1", make_voxels((5, 6, 7)), change=named("Thorax 5 mm"), spacing=(5, 0.98, 0.98)
    )
    save_series(
        folder / "2",
        make_voxels((24, 8, 9)),
        change=named("Thorax 1 mm Br40"),
        spacing=(1, 0.7, 0.7),
    )
    save_series(folder / "3", make_voxels((6, 4, 4)), change=named("", "MR"))
    save_series(folder / "4", make_voxels((1, 4, 4)), change=named("Scout"))


@pytest.mark.gui
def test_series_are_selected_in_a_table(
    viewer: Any, tmp_path: Path, screenshot_folder: Path
) -> None:
    save_three_series(tmp_path)
    seen = {}

    def choose(dialog: SeriesDialog) -> None:
        table, buttons = dialog.table, dialog.buttons
        seen["rows"] = [
            [table.topLevelItem(row).text(c) for c in range(5)]
            for row in range(table.topLevelItemCount())
        ]
        seen["first"] = [len(s.slices) for s in dialog.selected_series]
        dialog.grab().save(str(screenshot_folder / "series.png"))
        open_button = buttons.button(QDialogButtonBox.StandardButton.Open)
        table.topLevelItem(1).setCheckState(0, Qt.CheckState.Unchecked)
        seen["empty"] = open_button.isEnabled()
        table.topLevelItem(2).setCheckState(0, Qt.CheckState.Checked)
        table.itemClicked.emit(table.topLevelItem(0), 3)  # anywhere in the row
        open_button.click()

    act_when_shown(SeriesDialog, choose)
    layers = viewer.open(tmp_path, plugin=PLUGIN)
    assert seen["rows"] == [
        ["Thorax 5 mm", "CT", "7 × 6 × 5", "0.98 × 0.98 × 5.00", "5"],
        ["Thorax 1 mm Br40", "CT", "9 × 8 × 24", "0.70 × 0.70 × 1.00", "24"],
        ["no description", "MR", "4 × 4 × 6", "0.70 × 0.90 × 2.50", "6"],
    ]
    assert (seen["first"], seen["empty"]) == ([24], False)
    assert [layer.name for layer in layers] == ["Thorax 5 mm", "3"]
    assert [layer.data.shape for layer in layers] == [(5, 6, 7), (6, 4, 4)]
    assert not list_notifications(NotificationSeverity.ERROR)


@pytest.mark.gui
def test_canceling_opens_no_layer(viewer: Any, tmp_path: Path) -> None:
    save_three_series(tmp_path)
    met = act_when_shown(SeriesDialog, lambda dialog: dialog.reject())
    assert viewer.open(tmp_path, plugin=PLUGIN) == []
    assert met
    assert not notification_manager.records


@pytest.mark.gui
@pytest.mark.parametrize("answer", ["Resample", "Cancel"])
def test_irregular_series_need_consent(
    viewer: Any, tmp_path: Path, answer: str, screenshot_folder: Path
) -> None:
    save_series(tmp_path / "scan", make_voxels((8, 6, 7)), change=make_irregular)
    seen = {}

    def reply(box: QMessageBox) -> None:
        seen["text"] = box.text()
        seen["default"] = box.defaultButton().text().replace("&", "")
        box.grab().save(str(screenshot_folder / "uneven.png"))
        for button in box.findChildren(QPushButton):
            if button.text().replace("&", "") == answer:
                button.click()

    act_when_shown(QMessageBox, reply)
    layers = viewer.open(tmp_path / "scan", plugin=PLUGIN)
    assert "irregular slices, 2.50 to 3.80 mm apart" in seen["text"]
    assert "--resample" not in seen["text"]
    assert seen["default"] == "Cancel"
    assert len(layers) == (answer == "Resample")
    assert len(list_notifications(NotificationSeverity.WARNING)) == len(
        layers
    )  # that it was resampled
    if layers:
        assert layers[0].metadata["napari_dycon"]["source"].files == ()


@pytest.mark.gui
def test_errors_are_one_sentence_in_the_window(viewer: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no scan at all")
    assert viewer.open(broken, plugin=PLUGIN) == []
    (tmp_path / "gone").mkdir()
    files = save_series(tmp_path / "gone", make_voxels())
    for file in files[1:]:
        file.unlink()
    assert viewer.open(tmp_path / "gone", plugin=PLUGIN) == []
    first, second = list_notifications(NotificationSeverity.ERROR)
    assert first.startswith("broken.nii.gz cannot be read")
    assert "has one image; expected a scan with several slices" in second


@pytest.mark.gui
def test_selecting_all_files_of_a_series_opens_it_once(viewer: Any, tmp_path: Path) -> None:
    one = save_series(tmp_path, make_voxels())
    for number, file in enumerate(one):
        one[number] = file.rename(file.with_name(f"a{number}.dcm"))
    other = save_series(tmp_path, make_voxels((6, 4, 4)))
    report = tmp_path / "0.dcm"
    report.write_bytes(b"\0" * 128 + b"DICM")
    mixed = [report, *(file for pair in zip(one, other, strict=False) for file in pair), other[-1]]
    layers = viewer.open([str(file) for file in mixed], plugin=PLUGIN)
    assert [layer.data.shape for layer in layers] == [(5, 6, 7), (6, 4, 4)]
    assert len(list_notifications(NotificationSeverity.ERROR)) == 1  # of the report
    assert len(viewer.open(str(one[0]), plugin=PLUGIN)) == 1  # meant as such


@pytest.mark.gui
def test_notes_on_a_scan_are_shown(viewer: Any, tmp_path: Path) -> None:
    image = nib.Nifti1Image(make_voxels().astype(np.int16), None)
    nib.save(image, tmp_path / "a.nii")
    viewer.open(tmp_path / "a.nii", plugin=PLUGIN)
    assert "does not specify its orientation" in list_notifications(NotificationSeverity.WARNING)[0]


@pytest.mark.gui
def test_a_project_folder_opens_the_panel(viewer: Any, project: Project, qtbot: Any) -> None:
    assert viewer.open(project.path, plugin=PLUGIN) == []
    (panel,) = (w for w in viewer.window.dock_widgets.values() if isinstance(w, DyconPanel))
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    assert panel.session.project.path == project.path
    panel.session.show_case(panel.session.project.cases[0].id)
    qtbot.waitUntil(lambda: panel.session.case is not None, timeout=20_000)
    # A scan that was opened as a file stays when the case goes.
    scan = save_nifti(project.path.parent / "mine.nii", make_voxels().astype(np.int16))
    (mine,) = viewer.open(scan, plugin=PLUGIN)
    panel.release()
    qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=20_000)
    assert list(viewer.layers) == [mine]


@pytest.mark.gui
def test_the_window_stays_responsive_during_a_long_task(
    viewer: Any, screenshot_folder: Path
) -> None:
    ticks = []
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    timer.start(5)

    def work(tell: Callable[[int, int], None]) -> str:
        for number in range(60):
            tell(number, 60)
            time.sleep(0.02)
        return "done"

    def grab(dialog: QProgressDialog) -> None:
        dialog.grab().save(str(screenshot_folder / "progress.png"))

    met = act_when_shown(QProgressDialog, grab)
    assert run_with_dialog("Opening scan", work, find_main_window()) == "done"
    timer.stop()
    assert met
    assert max(np.diff(ticks)) < 0.5


@pytest.mark.gui
def test_waiting_can_be_canceled(viewer: Any) -> None:
    ended = []

    def work(tell: Callable[[int, int], None]) -> None:
        try:
            for number in range(1000):
                tell(number, 1000)
                time.sleep(0.02)
        except CancelledError:
            ended.append(True)
            raise

    act_when_shown(QProgressDialog, lambda dialog: dialog.findChild(QPushButton).click())
    begun = time.perf_counter()
    with pytest.raises(CancelledError):
        run_with_dialog("Opening scan", work, find_main_window())
    assert time.perf_counter() - begun < 10
    time.sleep(0.1)
    assert ended


@pytest.mark.gui
def test_errors_of_a_task_are_raised(viewer: Any) -> None:
    def work(_: object) -> None:
        raise FileFormatError("damaged")

    with pytest.raises(FileFormatError, match="damaged"):
        run_with_dialog("Opening scan", work, find_main_window())
