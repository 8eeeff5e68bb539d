"""Reading and writing NIfTI: exact geometry, and clear errors for other files."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nibabel.affines
import nibabel.eulerangles
import numpy as np
import pytest

from napari_dycon.errors import FileFormatError, GeometryError, LabelError, UserError
from napari_dycon.io import read_label, read_volume, write_map, write_mask

ORIENTATIONS = [
    "".join(codes)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*order)
]
SHAPE = (5, 6, 7)


def make_affine(codes: str, spacing: tuple[float, ...] = (0.7, 1.1, 2.5)) -> np.ndarray:
    ornt = nib.orientations.axcodes2ornt(codes)
    affine = np.zeros((4, 4))
    for axis, (world, sign) in enumerate(ornt):
        affine[int(world), axis] = sign * spacing[axis]
    affine[:, 3] = (-31.5, 12.25, 7.125, 1)
    return affine


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_round_trip_keeps_voxels_and_geometry(codes: str, tmp_path: Path) -> None:
    affine = make_affine(codes)
    data = np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(SHAPE)
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, code=2)
    image.set_sform(affine, code=3)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "in.nii.gz")

    volume = read_volume(tmp_path / "in.nii.gz")
    assert nib.aff2axcodes(volume.affine) == ("S", "P", "L")
    # The same voxel lies in the same place: checked against nibabel's own reading.
    place = (2, 1, 3)
    world = volume.affine @ [*place, 1]
    source = np.rint(np.linalg.inv(affine) @ world)[:3].astype(int)
    assert volume.array[place] == data[tuple(source)]

    write_mask(volume.array, reference=volume, path=tmp_path / "out.nii.gz")
    back = nib.load(tmp_path / "out.nii.gz")
    assert np.array_equal(np.asarray(back.dataobj), data)
    assert np.array_equal(back.affine, nib.load(tmp_path / "in.nii.gz").affine)
    for field in ("qform_code", "sform_code", "pixdim", "srow_x", "quatern_b", "xyzt_units"):
        assert np.array_equal(back.header[field], nib.load(tmp_path / "in.nii.gz").header[field])


def test_an_oblique_scan_keeps_its_rotation(tmp_path: Path) -> None:
    turn = nib.eulerangles.euler2mat(0.2, -0.3, 0.15)
    affine = nib.affines.from_matvec(turn @ np.diag([0.8, 0.9, 3.0]), [10, -20, 30])
    data = np.random.default_rng(0).integers(0, 9, SHAPE).astype(np.int16)
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "in.nii")
    volume = read_volume(tmp_path / "in.nii")
    assert sorted(volume.spacing_mm) == pytest.approx([0.8, 0.9, 3.0])
    write_map(volume.array, reference=volume, path=tmp_path / "out.nii")
    back = nib.load(tmp_path / "out.nii")
    assert np.array_equal(back.affine, nib.load(tmp_path / "in.nii").affine)
    assert np.array_equal(back.get_fdata(), data)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", ">i2", "int32", "uint16", "float32", "float64"]
)
def test_every_numeric_type_is_read(dtype: str, tmp_path: Path) -> None:
    data = np.arange(60).reshape(3, 4, 5).astype(dtype)
    nib.save(nib.Nifti1Image(data, np.eye(4), dtype=np.dtype(dtype)), tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert np.array_equal(np.sort(volume.array, axis=None), np.arange(60))
    assert volume.array.dtype.isnative


def test_scaled_values_and_a_fourth_dimension_of_one(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5, 1), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.shape == (5, 4, 3)
    assert volume.array.max() == pytest.approx(nib.load(tmp_path / "a.nii.gz").get_fdata().max())


def test_free_text_of_the_header_is_not_passed_on(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(60, dtype=np.uint8).reshape(3, 4, 5), np.eye(4))
    image.header["descrip"] = b"MUSTERMANN^ERIKA"
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    write_mask(volume.array, reference=volume, path=tmp_path / "b.nii")
    assert b"MUSTERMANN" not in (tmp_path / "b.nii").read_bytes()


@pytest.mark.parametrize("name", ["hippocampus", "left-atrium"])
def test_real_labels_survive_a_round_trip(
    name: str, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = real_data(name)
    for file in sorted((folder / "labels").glob("*.nii.gz"))[:5]:
        scan = read_volume(folder / "images" / file.name)
        label = read_label(file, reference=scan)
        write_mask(label.array, reference=label, path=tmp_path / file.name)
        before, after = nib.load(file), nib.load(tmp_path / file.name)
        assert np.array_equal(np.asarray(before.dataobj), np.asarray(after.dataobj))
        assert np.array_equal(before.affine, after.affine)
        for field in ("dim", "pixdim", "qform_code", "sform_code", "srow_y", "qoffset_z"):
            assert np.array_equal(before.header[field], after.header[field])


def write_broken_file(kind: str, folder: Path) -> Path:
    path = folder / "scan.nii.gz"
    data = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    if kind == "text":
        path.write_text("this is no scan")
        return path
    if kind == "empty":
        path.write_bytes(b"")
        return path
    if kind == "nan":
        data[0, 0, 0] = np.nan
    elif kind == "constant":
        data[:] = 3
    elif kind == "2d":
        data = data[..., :1]
    elif kind == "4d":
        data = np.stack([data, data], axis=-1)
    image = nib.Nifti1Image(data, np.eye(4))
    nib.save(image, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:150])
    elif kind in ("absurd", "singular"):
        raw = bytearray(gzip.decompress(path.read_bytes()))
        if kind == "absurd":  # the field "dim"
            raw[42:48] = np.array([32000, 32000, 32000], "<i2").tobytes()
        else:  # the field "srow_x"
            raw[280:296] = bytes(16)
        path.write_bytes(gzip.compress(bytes(raw)))
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text", "is not compressed, although"),
        ("empty", "it is empty"),
        ("truncated", "is truncated"),
        ("nan", "1 voxels that are not finite"),
        ("constant", "same value .3. in every voxel"),
        ("2d", "is not 3D"),
        ("4d", "is 4D .3 × 4 × 5 × 2."),
        ("singular", "no usable geometry"),
        ("absurd", "has 32000 × 32000 × 32000 voxels"),
    ],
)
def test_files_that_are_not_scans_are_refused_with_a_clear_error(
    kind: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read_volume(write_broken_file(kind, tmp_path))
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_reported(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="does not exist"):
        read_volume(tmp_path / "nothing.nii.gz")
    with pytest.raises(FileFormatError, match="no DICOM images"):
        read_volume(tmp_path)


def test_a_label_must_fit_its_scan(write_nifti: Callable[..., Path], tmp_path: Path) -> None:
    scan = read_volume(write_nifti(tmp_path / "s.nii.gz", np.arange(60).reshape(3, 4, 5) * 1.0))
    other = write_nifti(tmp_path / "l.nii.gz", np.ones((3, 4, 6), np.uint8))
    with pytest.raises(GeometryError, match="shapes differ"):
        read_label(other, reference=scan)
    moved = write_nifti(tmp_path / "m.nii.gz", np.ones((3, 4, 5), np.uint8), np.eye(4))
    with pytest.raises(GeometryError, match="their positions differ"):
        read_label(moved, reference=scan)
    gray = write_nifti(tmp_path / "g.nii.gz", np.full((3, 4, 5), 0.5, np.float32))
    with pytest.raises(LabelError, match="expected whole numbers"):
        read_label(gray)
