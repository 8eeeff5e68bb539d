"""Saving layers: position in space, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import nibabel.affines
import nibabel.eulerangles
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from helpers.dicom_files import OBLIQUE, make_voxels, save_series
from helpers.nifti_files import save_nifti
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.plugins import _npe2
from napari.utils.notifications import Notification
from npe2 import PluginManager

from napari_dycon.errors import FileFormatError, GeometryError, UserError
from napari_dycon.io import read_volume
from napari_dycon.project.store import Project
from napari_dycon.widgets.dialogs.progress import find_main_window
from napari_dycon.widgets.plugin.writers import write_image, write_labels

PLUGIN = "napari-dycon"
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
TURN = nib.eulerangles.euler2mat(0.2, -0.3, 0.4)


@pytest.fixture(autouse=True)
def registered_plugin() -> None:
    PluginManager.instance().discover()


@pytest.fixture
def oblique_scan(tmp_path: Path) -> Path:
    """Scan that is rotated, with axes right, anterior, inferior and an origin of its own."""
    affine = np.eye(4)
    affine[:3, :3] = TURN @ np.diag([0.7, 1.1, -2.5])
    affine[:3, 3] = (-31.5, 12.25, 7.125)
    return save_nifti(tmp_path / "scan.nii.gz", make_voxels((7, 6, 5)).astype(np.int16), affine)


def save_layer(layer: Any, path: Path) -> Path:
    """Save one layer as File > Save does, without a window."""
    viewer = ViewerModel()
    viewer.layers.append(layer)
    (written,) = viewer.layers.save(str(path), plugin=PLUGIN)
    return Path(written)


def compute_world_points(path: Path, value: int) -> np.ndarray:
    """RAS+ mm of the one voxel with a value."""
    image = nib.load(path)
    ((i, j, k),) = np.argwhere(np.asarray(image.dataobj) == value)
    return nib.affines.apply_affine(image.affine, (i, j, k))


# ---- Where layers lie ------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_opened_scan_keeps_its_grid(oblique_scan: Path, ending: str, tmp_path: Path) -> None:
    (layer,) = ViewerModel().open(oblique_scan, plugin=PLUGIN)
    out = save_layer(layer, tmp_path / f"out{ending}")
    before, after = read_volume(oblique_scan), read_volume(out)
    assert np.array_equal(after.array, before.array)
    assert after.array.dtype == np.int16
    assert np.allclose(after.source.affine, before.source.affine, atol=1e-5)
    assert after.source.shape == before.source.shape


def test_labels_created_for_an_opened_scan_are_aligned_with_it(
    oblique_scan: Path, tmp_path: Path
) -> None:
    (layer,) = ViewerModel().open(oblique_scan, plugin=PLUGIN)
    mask = (layer.data > 100).astype(np.int64)
    labels = Labels(mask, scale=layer.scale, units=layer.units, metadata=layer.metadata)
    out = nib.load(save_layer(labels, tmp_path / "mask.nii.gz"))
    scan = nib.load(oblique_scan)
    assert np.array_equal(out.affine, scan.affine)
    assert np.array_equal(np.asarray(out.dataobj), np.asarray(scan.dataobj) > 100)
    assert out.get_data_dtype() == np.uint8


def test_a_cropped_layer_keeps_its_position(oblique_scan: Path, tmp_path: Path) -> None:
    (layer,) = ViewerModel().open(oblique_scan, plugin=PLUGIN)
    corner = (1, 2, 3)
    part = Image(
        layer.data[1:4, 2:6, 3:],
        scale=layer.scale,
        translate=np.array(layer.scale) * corner,
        units=layer.units,
        metadata=layer.metadata,
    )
    out = save_layer(part, tmp_path / "part.nii")
    for value in (layer.data[1, 2, 3], layer.data[3, 5, 5]):
        assert np.allclose(
            compute_world_points(out, value), compute_world_points(oblique_scan, value), atol=1e-4
        )


def test_a_dicom_series_is_written_in_patient_coordinates(tmp_path: Path) -> None:
    save_series(tmp_path / "scan", make_voxels(), directions=OBLIQUE)
    (layer,) = ViewerModel().open(tmp_path / "scan", plugin=PLUGIN)
    out = save_layer(layer, tmp_path / "scan.nrrd")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "scan")))
    theirs, ours = reader.Execute(), sitk.ReadImage(str(out))
    assert np.array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
    for ask in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert np.allclose(getattr(ours, ask)(), getattr(theirs, ask)(), atol=1e-5)


def test_other_layers_are_assumed_to_be_oriented_spl(tmp_path: Path) -> None:
    layer = Image(make_voxels((4, 5, 6)), scale=(3, 2, 1.5), translate=(10, 20, 30))
    out = save_layer(layer, tmp_path / "out.nii.gz")
    assert nib.aff2axcodes(nib.load(out).affine) == ("L", "P", "S")
    place = (3, 1, 2)
    z, y, x = np.array(place) * (3, 2, 1.5) + (10, 20, 30)
    assert np.allclose(compute_world_points(out, layer.data[place]), (-x, -y, z))
    back = read_volume(out)
    assert np.array_equal(back.array, layer.data)
    assert back.spacing_mm == (3.0, 2.0, 1.5)


def test_units_and_a_scaling_affine_are_considered(tmp_path: Path) -> None:
    layer = Image(
        make_voxels((4, 5, 6)),
        scale=(2, 1, 1),
        translate=(5, 0, 0),
        units=("um", "um", "um"),
        affine=np.array([[10, 0, 0, 7], [0, 20, 0, 0], [0, 0, 20, 0], [0, 0, 0, 1]]),
    )
    out = save_layer(layer, tmp_path / "out.nii")
    assert np.allclose(nib.load(out).header.get_zooms(), (0.02, 0.02, 0.02))
    assert np.allclose(compute_world_points(out, 0), (0, 0, 0.057))


# ---- What is in the file ---------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("most", "least", "kind"),
    [
        (255, 0, np.uint8),
        (256, 0, np.int16),
        (3, -1, np.int16),
        (40_000, 0, np.uint16),
        (70_000, 0, np.int32),
        (2**40, 0, np.int64),
    ],
)
def test_labels_use_the_smallest_sufficient_type(
    ending: str, most: int, least: int, kind: Any, tmp_path: Path
) -> None:
    data = np.zeros((3, 4, 5), np.int64)
    data[1, 2, 3], data[0, 0, 0] = most, least
    back = read_volume(save_layer(Labels(data), tmp_path / f"a{ending}"))
    assert back.array.dtype == kind
    assert np.array_equal(back.array, data)


@pytest.mark.parametrize("kind", ["bool", "float16", "float32", "float64", "uint16", "int64"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_images_of_every_type_are_written(kind: str, ending: str, tmp_path: Path) -> None:
    data = (np.arange(60).reshape(3, 4, 5) % 7).astype(kind)
    path = tmp_path / f"a{ending}"
    assert write_image(str(path), data, {}) == [str(path)]
    assert np.array_equal(read_volume(path).array, data.astype(np.float64))


def test_a_name_without_a_suffix_gets_one(tmp_path: Path) -> None:
    data = np.eye(4, dtype=np.uint8)[None].repeat(3, 0)
    written = write_labels(str(tmp_path / "mask"), data, {})
    assert written == [str(tmp_path / "mask.nii.gz")]
    with pytest.raises(UserError, match=r"mask\.nii\.gz already exists"):
        write_labels(str(tmp_path / "mask"), data, {})
    with pytest.raises(FileFormatError, match=r"ends with one of: \.nii\.gz"):
        write_labels(str(tmp_path / "mask.tif"), data, {})


def test_the_save_dialog_offers_the_formats() -> None:
    labels = Labels(np.zeros((3, 4, 5), np.uint8))
    kinds, _ = _npe2.file_extensions_string_for_layers([labels])
    assert "DyCON labels (*.nii.gz *.nii *.nrrd *.mha)" in kinds


# ---- What is refused -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")  # napari's own
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Image(np.zeros((4, 5, 6)), rotate=(10, 0, 0), name="T1"),
            "T1 is rotated, mirrored",
        ),
        (lambda: Image(np.zeros((4, 5, 6)), shear=(0.1, 0, 0)), "sheared"),
        (lambda: Image(np.zeros((4, 5, 6)), scale=(-1, 1, 1)), "mirrored"),
        (lambda: Labels(np.zeros((4, 5, 6), int), affine=np.eye(4)[[1, 0, 2, 3]]), "is rotated"),
        (lambda: Image(np.zeros((40, 50, 3), np.uint8), rgb=True), r"an RGB image"),
        (lambda: Image([np.zeros((8, 8, 8)), np.zeros((4, 4, 4))]), "multiscale"),
        (lambda: Image(np.zeros((4, 5))), "is 2D; expected a 3D layer"),
        (lambda: Labels(np.zeros((2, 4, 5, 6), int)), "is 4D; expected a 3D layer"),
    ],
)
def test_failed_writes_are_reported(make: Callable[[], Any], words: str, tmp_path: Path) -> None:
    layer = make()
    with pytest.raises(UserError, match=words) as met:
        save_layer(layer, tmp_path / "a.nii.gz")
    assert Notification.from_exception(met.value).message == str(met.value)  # what a window shows
    assert not list(tmp_path.iterdir())


def test_complex_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="T1 holds complex128 values"):
        write_image(str(tmp_path / "a.nii"), np.zeros((4, 5, 6), complex), {"name": "T1"})


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.nii\.gz could not be written"):
        save_layer(Image(make_voxels()), tmp_path / "no" / "a.nii.gz")


# ---- In a window -----------------------------------------------------------------------------


@pytest.fixture
def viewer(needs_display: None, make_napari_viewer: Callable[..., Any], qtbot: Any) -> Any:
    made = make_napari_viewer(show=True)
    qtbot.waitUntil(lambda: find_main_window() is not None)
    return made


@pytest.mark.gui
def test_new_labels_over_a_scan_are_written_on_its_grid(
    viewer: Any, oblique_scan: Path, tmp_path: Path
) -> None:
    (scan,) = viewer.open(oblique_scan, plugin=PLUGIN)
    viewer.layers.selection.active = scan
    viewer._new_labels()  # the button
    labels = viewer.layers[-1]
    labels.data[1, 2, 3] = 1
    viewer.layers.selection = {labels}
    viewer.layers.save(str(tmp_path / "mask.nii.gz"), selected=True, plugin=PLUGIN)
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(mask.affine, nib.load(oblique_scan).affine)
    assert np.allclose(
        compute_world_points(tmp_path / "mask.nii.gz", 1),
        compute_world_points(oblique_scan, scan.data[1, 2, 3]),
        atol=1e-5,
    )


@pytest.mark.gui
def test_labels_over_two_scans_in_different_positions_are_refused(
    viewer: Any, oblique_scan: Path, tmp_path: Path
) -> None:
    (scan,) = viewer.open(oblique_scan, plugin=PLUGIN)
    shape = (6, 7, 8)
    other = save_nifti(tmp_path / "other.nii", make_voxels(shape).astype(np.int16))
    viewer.open(other, plugin=PLUGIN)
    unlike = viewer.add_labels(np.zeros((9, 9, 9), np.uint8), units=("mm",) * 3)
    viewer.layers.selection = {unlike}
    with pytest.raises(GeometryError, match="overlaps scan and other"):
        viewer.layers.save(str(tmp_path / "mask.nii"), selected=True, plugin=PLUGIN)
    like = viewer.add_labels(
        np.zeros(scan.data.shape, np.uint8), scale=scan.scale, units=["mm"] * 3
    )
    viewer.layers.selection = {like}
    viewer.layers.save(str(tmp_path / "mask.nii"), selected=True, plugin=PLUGIN)
    assert np.array_equal(nib.load(tmp_path / "mask.nii").affine, nib.load(oblique_scan).affine)


@pytest.mark.gui
def test_layers_of_the_panel_are_written_on_the_grid_of_their_scan(
    window: Callable[[], Any], project: Project, tmp_path: Path, qtbot: Any
) -> None:
    viewer, panel = window()
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    panel.session.show_case("scan-1")
    qtbot.waitUntil(lambda: panel.session.case is not None, timeout=20_000)
    label = panel.layers.find_layer("label")
    assert set(label.metadata["napari_dycon"]) == {"case", "role", "source"}
    viewer.layers.selection = {label}
    viewer.layers.save(str(tmp_path / "mask.nii.gz"), selected=True, plugin=PLUGIN)
    mask = nib.load(tmp_path / "mask.nii.gz")
    truth = nib.load(tmp_path / "scans" / "labels" / "scan-1.nii.gz")
    assert np.array_equal(mask.affine, truth.affine)
    assert np.array_equal(np.asarray(mask.dataobj), np.asarray(truth.dataobj))
