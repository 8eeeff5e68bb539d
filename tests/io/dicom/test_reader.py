"""DICOM series are read as SimpleITK reads them, and damaged ones are refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from helpers.dicom_files import (
    AXIAL,
    CORONAL,
    IDENTITY,
    OBLIQUE,
    SAGITTAL,
    make_voxels,
    save_enhanced,
    save_series,
)
from pydicom.uid import generate_uid

from napari_dycon.errors import FileFormatError, GeometryError, IrregularSlicesError
from napari_dycon.io import read_volume, scan_name
from napari_dycon.io.dicom.discovery import find_series
from napari_dycon.io.dicom.resampling import resample_slices
from napari_dycon.io.dicom.slice_geometry import Slice
from napari_dycon.io.volume import Volume, from_canonical

PLANES = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL, "oblique": OBLIQUE}
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_with_itk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (i, j, k) and affine to RAS mm as SimpleITK's own reader of series gives them."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), LPS @ affine


def assert_same_places(volume: Volume, array: np.ndarray, affine: np.ndarray) -> None:
    """Every voxel has the same value at the same place, whatever the order of slices."""
    own = from_canonical(volume.array, volume.source)
    index = np.indices(own.shape).reshape(3, -1)
    world = volume.source.affine @ np.vstack([index, np.ones(index.shape[1])])
    theirs = np.linalg.inv(affine) @ world
    assert np.allclose(theirs[:3], np.rint(theirs[:3]), atol=1e-3)
    at = tuple(np.rint(theirs[:3]).astype(int))
    assert np.array_equal(own.reshape(-1), array[at])


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("plane", PLANES)
def test_geometry_and_voxels_agree_with_simpleitk(
    plane: str, backwards: bool, tmp_path: Path
) -> None:
    paths = save_series(
        tmp_path / "s", make_voxels(), directions=PLANES[plane], backwards=backwards
    )
    volume = read_volume(tmp_path / "s")
    assert volume.array.dtype == np.int16
    assert volume.source.files == tuple(paths)
    assert not volume.notes
    assert_same_places(volume, *read_with_itk(tmp_path / "s"))
    again = read_volume(paths[2])  # any file of it means the series
    assert np.array_equal(again.array, volume.array)
    assert scan_name(paths[2]) == "s"


@pytest.mark.parametrize("name", ["mr-t1-oblique", "mr-hippocampus-crop"])
def test_the_geometry_of_real_series_agrees_with_simpleitk(
    name: str, real_data: Callable[[str], Path]
) -> None:
    folder = real_data(f"dicom/{name}")
    volume = read_volume(folder)
    array, affine = read_with_itk(folder)
    corners = np.array([[*c, 1] for c in np.ndindex(2, 2, 2)]).T
    corners = corners * np.array([[*volume.source.shape, 1]]).T
    assert np.abs((affine - volume.source.affine) @ corners).max() < 1e-3
    assert np.array_equal(from_canonical(volume.array, volume.source), array)


def test_a_tilted_gantry_is_resampled_on_demand(
    real_data: Callable[[str], Path],
) -> None:
    folder = real_data("dicom/ct-gantry-tilt")
    with pytest.raises(IrregularSlicesError, match=r"tilted gantry: from 01.dcm to 28.dcm .*18.5°"):
        read_volume(folder)
    volume = read_volume(folder, resample=True)
    assert "It was resampled" in volume.notes[0]
    assert volume.source.files == ()
    turn = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    assert np.allclose(turn.T @ turn, np.eye(3), atol=1e-6)
    # Slices themselves lie where they were: the first is the lowest plane of the result.
    first = pydicom.dcmread(folder / "01.dcm")
    place = LPS @ [*map(float, first.ImagePositionPatient), 1.0]
    index = np.rint(np.linalg.inv(volume.source.affine) @ place).astype(int)[:3]
    own = from_canonical(volume.array, volume.source)
    rows, columns = first.Rows, first.Columns
    part = own[index[0] : index[0] + columns, index[1] : index[1] + rows, index[2]].T
    error = np.abs(part.astype(float) - first.pixel_array)
    assert np.median(error) <= 1  # shifted by less than a pixel
    assert np.mean(error < 60) > 0.95


def test_resampling_restores_a_linear_ramp(tmp_path: Path) -> None:
    """Uneven and tilted slices of a ramp in space become the same ramp."""
    heights = np.array([0.0, 2.0, 3.0, 6.5, 8.0, 10.0])
    rows, columns = np.indices((9, 8))

    def place(data: Any, number: int) -> None:
        position = np.array([5 * 0.0, 0.4 * heights[number], heights[number]])
        data.ImagePositionPatient = position.tolist()
        y = position[1] + rows * 1.0
        data.PixelData = (100 * heights[number] + 10 * y + columns).astype("<i2").tobytes()

    save_series(
        tmp_path / "s",
        make_voxels((6, 9, 8)),
        spacing=(2.0, 1.0, 1.0),
        origin=(0, 0, 0),
        change=place,
    )
    volume = read_volume(tmp_path / "s", resample=True)
    own = from_canonical(volume.array, volume.source)
    index = np.indices(own.shape).reshape(3, -1)
    x, y, z, _ = LPS @ volume.source.affine @ np.vstack([index, np.ones(index.shape[1])])
    covered = (y > 0.4 * z + 1.5) & (y < 0.4 * z + 6.5)  # by both slices around a voxel
    wanted = 100 * z + 10 * y + x
    assert covered.sum() > 150
    assert np.abs(own.reshape(-1)[covered] - wanted[covered]).max() <= 1  # rounded


def test_missing_irregular_and_duplicate_slices_are_named(tmp_path: Path) -> None:
    save_series(tmp_path / "missing", make_voxels())[2].unlink()
    with pytest.raises(IrregularSlicesError, match=r"lacks 1 slice.*IM0002.dcm and IM0004.dcm"):
        read_volume(tmp_path / "missing")

    def uneven(data: Any, number: int) -> None:
        if number == 4:
            data.ImagePositionPatient[2] += 0.8

    save_series(tmp_path / "uneven", make_voxels(), change=uneven)
    with pytest.raises(IrregularSlicesError, match=r"2.50 to 3.30 mm.*IM0004.dcm and IM0005.dcm"):
        read_volume(tmp_path / "uneven")
    (copy,) = save_series(tmp_path / "double", make_voxels())[:1]
    (tmp_path / "double" / "copy.dcm").write_bytes(copy.read_bytes())
    with pytest.raises(GeometryError, match=r"at the same position, such as .*dcm"):
        read_volume(tmp_path / "double", resample=True)


def test_series_in_one_folder_are_separated(tmp_path: Path) -> None:
    save_series(tmp_path / "a", make_voxels())
    with_other = save_series(tmp_path / "a", make_voxels((4, 8, 8)), uid=generate_uid())
    save_series(tmp_path / "b" / "deep", make_voxels((3, 6, 7)))
    assert len(with_other) == 4
    found = find_series(tmp_path)
    assert [len(series.slices) for series in found] == [4, 1, 3]
    with pytest.raises(
        FileFormatError, match=r"contains 2 series: T1 test \(MR\): 8 × 8 × 4 voxels"
    ):
        read_volume(tmp_path)
    assert read_volume(tmp_path / "b").shape == (3, 6, 7)
    volume = read_volume(tmp_path / "a")  # a single image beside it is left out
    assert volume.shape == (4, 8, 8)
    assert volume.notes == ("1 single image outside the series was left out.",)


def test_echoes_of_one_series_are_separate_scans(tmp_path: Path) -> None:
    uid = generate_uid()
    for echo in (1, 2):

        def mark(data: Any, number: int, echo: int = echo) -> None:
            data.EchoNumbers = echo

        paths = save_series(
            tmp_path / f"{echo}", make_voxels() + 1000 * (echo - 1), uid=uid, change=mark
        )
        for path in paths:
            path.rename(tmp_path / f"{echo}-{path.name}")
    first, second = find_series(tmp_path)
    assert first.description == "T1 test (1 of 2)"
    assert len(first.slices) == len(second.slices) == 5
    assert read_volume(second.path).array.min() == 1000


def test_rescaling_is_applied_per_slice(tmp_path: Path) -> None:
    def hounsfield(data: Any, number: int) -> None:
        data.RescaleSlope, data.RescaleIntercept = 1, -1024

    save_series(tmp_path / "ct", make_voxels(dtype="uint16"), change=hounsfield)
    volume = read_volume(tmp_path / "ct")
    assert (volume.array.dtype, volume.array.min()) == (np.int32, -1024)

    def counts(data: Any, number: int) -> None:
        data.RescaleSlope, data.RescaleIntercept = 0.5 + number, 0

    save_series(tmp_path / "pet", make_voxels(), change=counts)
    volume = read_volume(tmp_path / "pet")
    assert volume.array.dtype == np.float32
    own = from_canonical(volume.array, volume.source).transpose(2, 1, 0)
    assert np.allclose(own, make_voxels() * (0.5 + np.arange(5))[:, None, None])


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("shared", [True, False])
def test_a_multi_frame_file_has_the_geometry_of_its_header(
    plane: str, shared: bool, tmp_path: Path
) -> None:
    """Frames in any order; places computed here from the header, frame by frame."""
    voxels = make_voxels((6, 7, 9), "uint16")
    path = tmp_path / "s" / "one.dcm"
    save_enhanced(path, voxels, PLANES[plane], order=[4, 1, 5, 0, 3, 2], shared=shared)
    volume = read_volume(path)
    assert volume.source.files == (path,)
    assert volume.array.dtype == np.uint16
    own = from_canonical(volume.array, volume.source)
    inverse = np.linalg.inv(LPS @ volume.source.affine)
    header = pydicom.dcmread(path)
    seen = set()
    frames = header.PerFrameFunctionalGroupsSequence
    for frame, groups in zip(header.pixel_array, frames, strict=True):
        held = header.SharedFunctionalGroupsSequence[0] if shared else groups
        first = [float(v) for v in groups.PlanePositionSequence[0].ImagePositionPatient]
        along = [float(v) for v in held.PlaneOrientationSequence[0].ImageOrientationPatient]
        down, across = (float(v) for v in held.PixelMeasuresSequence[0].PixelSpacing)
        for row, column in np.ndindex(frame.shape):
            place = np.array(first) + column * across * np.array(along[:3])
            place = place + row * down * np.array(along[3:])
            index = inverse @ [*place, 1.0]
            assert np.allclose(index, np.rint(index), atol=1e-3)
            at = tuple(np.rint(index[:3]).astype(int))
            assert own[at] == frame[row, column]
            seen.add(at)
    assert len(seen) == own.size


def test_frames_of_two_time_points_are_separate_scans(tmp_path: Path) -> None:
    path = tmp_path / "s" / "one.dcm"
    voxels = np.concatenate(
        [make_voxels((4, 7, 9), "uint16"), 1000 + make_voxels((4, 7, 9), "uint16")]
    )
    save_enhanced(path, voxels)
    data = pydicom.dcmread(path)
    for number, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        frame.FrameContentSequence[0].TemporalPositionIndex = 1 + number // 4
        place = data.PerFrameFunctionalGroupsSequence[number % 4].PlanePositionSequence
        frame.PlanePositionSequence = place
    data.save_as(path)
    assert [len(series.slices) for series in find_series(tmp_path)] == [4, 4]
    with pytest.raises(FileFormatError, match=r"contains 2 series: Series-4711 \(1 of 2\)"):
        read_volume(path)


def test_files_that_are_not_scans_are_refused_with_a_clear_error(tmp_path: Path) -> None:
    def screenshot(data: Any, number: int) -> None:
        del data.ImagePositionPatient

    save_series(tmp_path / "shots", make_voxels(), change=screenshot)
    with pytest.raises(FileFormatError, match="no DICOM images with a position"):
        read_volume(tmp_path / "shots")
    save_series(tmp_path / "one", make_voxels((1, 6, 7)))
    with pytest.raises(FileFormatError, match="has one image"):
        read_volume(tmp_path / "one" / "IM0001.dcm")
    (path, *_) = save_series(tmp_path / "cut", make_voxels())
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(FileFormatError, match=r"IM0001.dcm cannot be read"):
        read_volume(tmp_path / "cut")


def test_messages_contain_no_patient_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_series(tmp_path / "s", make_voxels())[2].unlink()
    with caplog.at_level(logging.DEBUG), pytest.raises(IrregularSlicesError) as error:
        read_volume(tmp_path / "s")
    volume = read_volume(tmp_path / "s", resample=True)
    said = " ".join([str(error.value), *volume.notes, caplog.text])
    known = [v for k, v in IDENTITY.items() if k != "SeriesDescription" and len(v) > 3]
    assert not any(word in said for value in known for word in value.split("^"))


def test_rounding_errors_do_not_cut_off_resampled_slices() -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
        turn[:, 2] = np.cross(turn[:, 0], turn[:, 1])
        origin = random.uniform(-200, 200, 3)
        slices = [
            Slice(
                Path(f"{height}.dcm"), np.round(origin + turn[:, 2] * height, 3), turn[:, 0],
                turn[:, 1], (0.7, 0.7), 8, 9,
            )
            for height in (0, 1, 2, 4, 5)
        ]  # fmt: skip
        plane = np.full((9, 8), 100, np.float32)
        plane[4, 4] = 0
        stack, _ = resample_slices(slices, lambda _, plane=plane: plane, np.dtype(np.float32))
        assert stack.shape == (6, 9, 8)
        assert np.count_nonzero(stack < 99) == 6


def test_displaced_slices_are_named(tmp_path: Path) -> None:
    def moved(data: Any, number: int) -> None:
        if number == 2:
            place = [float(v) for v in data.ImagePositionPatient]
            data.ImagePositionPatient = [place[0] + 20, *place[1:]]

    save_series(tmp_path / "s", make_voxels(), change=moved)
    with pytest.raises(IrregularSlicesError, match=r"up to 20.0 mm, such as IM0003"):
        read_volume(tmp_path / "s")
    assert read_volume(tmp_path / "s", resample=True).shape[0] == 5


def test_damaged_slices_at_the_ends_are_reported(tmp_path: Path) -> None:
    paths = save_series(tmp_path / "s", make_voxels())
    paths[-1].write_bytes(paths[-1].read_bytes()[:200] + b"\xff" * 300)
    volume = read_volume(tmp_path / "s")
    assert volume.shape[0] == 4
    assert volume.notes == (
        "1 damaged file in the folder was left out, such as IM0005.dcm; slices may be "
        "missing at its ends.",
    )


def test_a_damaged_preamble_is_reported(tmp_path: Path) -> None:
    paths = save_series(tmp_path / "s", make_voxels())
    data = bytearray(paths[-1].read_bytes())
    at = data.index(b"\x02\x00\x02\x00UI")  # which class of image the file says it is
    data[at + 4 : at + 6] = b"EI"
    paths[-1].write_bytes(data[: data.index(b"\x28\x00\x10\x00")])  # and it ends before its size
    volume = read_volume(tmp_path / "s")
    assert volume.shape[0] == 4
    assert "1 damaged file" in volume.notes[0]


def test_damaged_scaling_is_reported(tmp_path: Path) -> None:
    (path, *_) = save_series(tmp_path / "s", make_voxels())
    data = bytearray(path.read_bytes())
    at = data.index(b"\x28\x00\x01\x01US")  # how many bits a pixel has
    data[at + 4 : at + 6] = b"EI"
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=r"IM0001.dcm cannot be read"):
        read_volume(tmp_path / "s")
