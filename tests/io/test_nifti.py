"""NIfTI files: orientation, headers, writing."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
import pytest
from helpers.stored_nifti import AFFINE, SHAPE, make_voxels, save_nifti_bytes
from nibabel import orientations

from napari_dycon.errors import GeometryError, LabelError
from napari_dycon.io import gzip as unpacking
from napari_dycon.io import (
    is_scan,
    read_label,
    read_volume,
    write_map,
    write_mask,
)
from napari_dycon.io.volume import Source, Volume, grid_difference, to_contiguous

ORIENTATIONS = [
    "".join(codes)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*order)
]
GEOMETRY = (
    *("qform_code", "sform_code", "pixdim", "xyzt_units", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)


def assert_same_geometry(path: Path, other: Path) -> None:
    a, b = nib.load(path), nib.load(other)
    assert np.array_equal(a.affine, b.affine)
    for field in GEOMETRY:
        assert np.array_equal(a.header[field], b.header[field]), field


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_reorientation_agrees_with_nibabel(codes: str, tmp_path: Path) -> None:
    affine = np.array([[0, 0, 0, 31.5], [0, 0, 0, -12.25], [0, 0, 0, 7.125], [0, 0, 0, 1]])
    for axis, (world, sign) in enumerate(orientations.axcodes2ornt(codes).astype(int)):
        affine[world, axis] = sign * (0.7, 1.1, 2.5)[axis]
    assert "".join(nib.aff2axcodes(affine)) == codes
    for dtype in ("uint8", "int16", "float32"):
        path = save_nifti_bytes(tmp_path / f"{dtype}.nii", make_voxels(dtype), affine)
        image = nib.load(path)
        turn = orientations.ornt_transform(
            nib.io_orientation(image.affine), orientations.axcodes2ornt("SPL")
        )
        reference = image.as_reoriented(turn)
        volume = read_volume(path)
        assert volume.array.dtype == dtype
        assert np.array_equal(volume.array, reference.get_fdata())
        assert np.allclose(volume.affine, reference.affine, rtol=0, atol=1e-12)
        write_map(volume.array, reference=volume, path=tmp_path / "map.nii")
        assert np.array_equal(nib.load(tmp_path / "map.nii").get_fdata(), make_voxels(dtype))
        assert_same_geometry(path, tmp_path / "map.nii")


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (0, 0), (2, 4), (3, 3)])
def test_form_codes_are_kept(codes: tuple[int, int], tmp_path: Path) -> None:
    path = save_nifti_bytes(tmp_path / "a.nii.gz", make_voxels("uint8"), codes=codes)
    volume = read_volume(path)
    write_mask(volume.array, reference=volume, path=tmp_path / "b.nii.gz")
    assert_same_geometry(path, tmp_path / "b.nii.gz")
    assert np.array_equal(nib.load(tmp_path / "b.nii.gz").dataobj, make_voxels("uint8"))


def test_contradictory_q_and_s_forms_are_kept(tmp_path: Path) -> None:
    image = nib.Nifti1Image(make_voxels("uint8"), AFFINE)
    image.set_qform(np.diag([2.0, 2.0, 2.0, 1.0]), code=1)
    image.set_sform(AFFINE, code=2)
    nib.save(image, tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    write_mask(volume.array, reference=volume, path=tmp_path / "b.nii.gz")
    assert_same_geometry(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_versions_and_byte_orders_are_read(
    kind: type[nib.Nifti1Image], endian: str, tmp_path: Path
) -> None:
    path = save_nifti_bytes(
        tmp_path / "a.nii.gz", make_voxels(f"{endian}i2"), kind=kind, endian=endian
    )
    assert nib.load(path).header.endianness == endian
    volume = read_volume(path)
    assert volume.array.dtype == np.int16
    assert volume.array.dtype.isnative
    write_mask(volume.array, reference=volume, path=tmp_path / "b.nii.gz")
    back = nib.load(tmp_path / "b.nii.gz")
    assert isinstance(back, kind)
    assert back.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(back.dataobj), make_voxels("uint8"))
    assert_same_geometry(path, tmp_path / "b.nii.gz")
    write_map(volume.array / 7, reference=volume, path=tmp_path / "c.nii.gz")
    assert np.array_equal(
        nib.load(tmp_path / "c.nii.gz").get_fdata(dtype=np.float32),
        (make_voxels("int16") / 7).astype(np.float32),
    )


def test_scaled_and_four_dimensional_headers_give_plain_masks(tmp_path: Path) -> None:
    image = nib.Nifti1Image(make_voxels("int16", (*SHAPE, 1, 1)), AFFINE)
    image.header.set_slope_inter(0.25, -7)
    image.header["cal_max"] = 3
    nib.save(image, tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.array.dtype == np.float32
    expected = nib.load(tmp_path / "a.nii.gz").get_fdata()[..., 0, 0]
    turned = nib.as_closest_canonical(nib.Nifti1Image(expected, AFFINE)).get_fdata()
    assert np.array_equal(np.sort(volume.array, axis=None), np.sort(turned, axis=None))
    mask = (volume.array > 0).astype(np.uint8)
    write_mask(mask, reference=volume, path=tmp_path / "b.nii.gz")
    back = nib.load(tmp_path / "b.nii.gz")
    assert back.shape == SHAPE
    assert back.dataobj.slope == 1
    assert back.dataobj.inter == 0
    assert np.array_equal(np.asarray(back.dataobj), expected > 0)
    # nibabel stored the scaled values as near as int16 allows; a label of them still is one.
    assert read_label(tmp_path / "b.nii.gz", reference=volume).array.dtype == np.uint8


def test_patient_data_in_headers_is_not_passed_on(tmp_path: Path) -> None:
    image = nib.Nifti1Image(make_voxels("uint8"), AFFINE)
    for field in ("data_type", "descrip", "intent_name", "db_name", "aux_file"):
        image.header[field] = b"MUSTERMANN"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"MUSTERMANN^ERIKA"))
    nib.save(image, tmp_path / "MUSTERMANN.nii.gz")
    volume = read_volume(tmp_path / "MUSTERMANN.nii.gz")
    for write in (write_mask, write_map):
        write(volume.array, reference=volume, path=tmp_path / "out.nii.gz")
        raw = (tmp_path / "out.nii.gz").read_bytes()
        assert b"MUSTERMANN" not in raw
        assert b"MUSTERMANN" not in gzip.decompress(raw)
        back = nib.load(tmp_path / "out.nii.gz")
        assert np.array_equal(back.get_fdata(), make_voxels("uint8"))
        for field in ("data_type", "descrip", "intent_name", "db_name", "aux_file"):
            assert back.header[field].item() == b""
    # The scan itself is never touched.
    assert nib.load(tmp_path / "MUSTERMANN.nii.gz").header["descrip"].item() == b"MUSTERMANN"


def test_the_same_mask_gives_the_same_bytes(tmp_path: Path) -> None:
    volume = read_volume(save_nifti_bytes(tmp_path / "a.nii.gz", make_voxels("uint8")))
    for name in ("b.nii.gz", "c.nii.gz"):
        write_mask(volume.array, reference=volume, path=tmp_path / name)
    assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()


def test_a_volume_without_a_file_can_be_written(tmp_path: Path) -> None:
    affine = np.array([[0, 0, -1.0, 9], [0, -1.0, 0, 8], [2.0, 0, 0, 7], [0, 0, 0, 1]])
    array = make_voxels("uint8")
    volume = Volume(array, affine, Source(None, SHAPE, affine))
    write_mask(array, reference=volume, path=tmp_path / "a.nii.gz")
    back = read_label(tmp_path / "a.nii.gz", reference=volume)
    assert np.array_equal(back.array, array)
    assert nib.load(tmp_path / "a.nii.gz").header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(
    ("set_name", "pattern"),
    [("hippocampus", "images/*"), ("left-atrium", "images/*"), ("ms-lesions", "imagesTr/*")],
)
def test_the_geometry_of_real_scans_agrees_with_nibabel(
    set_name: str, pattern: str, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    files = sorted(p for p in real_data(set_name).glob(pattern) if is_scan(p))[:3]
    assert files
    for file in files:
        volume = read_volume(file)
        assert nib.aff2axcodes(volume.affine) == ("S", "P", "L")
        image = nib.load(file)
        turn = orientations.ornt_transform(
            nib.io_orientation(image.affine), orientations.axcodes2ornt("SPL")
        )
        same = image.as_reoriented(turn).get_fdata(dtype=np.float32)
        assert np.array_equal(volume.array.astype(np.float32), same)
        write_mask(
            (volume.array > volume.array.mean()), reference=volume, path=tmp_path / "m.nii.gz"
        )
        assert_same_geometry(file, tmp_path / "m.nii.gz")


@pytest.mark.parametrize("dtype", ["uint8", ">i2", "<f4", ">f8"])
def test_decompression_is_the_same_with_and_without_isal(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = (np.random.default_rng(0).normal(size=(7, 8, 9)) * 50).astype(dtype)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"head" + array.tobytes(order="F")))
    for opener in (unpacking._open, gzip.open):
        monkeypatch.setattr(unpacking, "_open", opener)
        found = unpacking.read_gzip_voxels(path, 4, array.shape, array.dtype)
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)
        with pytest.raises(EOFError):
            unpacking.read_gzip_voxels(path, 5, array.shape, array.dtype)


@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
@pytest.mark.parametrize("shape", [(4, 5, 6), (5, 2, 3), (1, 1, 1)])
def test_voxels_are_reordered_in_place(
    signs: tuple[int, int, int], shape: tuple[int, int, int]
) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    turned = array[tuple(slice(None, None, sign) for sign in signs)]
    wanted = turned.copy()
    found = to_contiguous(turned)
    assert np.array_equal(found, wanted)
    assert found.flags.c_contiguous
    assert np.shares_memory(found, array)
    other = to_contiguous(wanted.transpose(2, 0, 1))
    assert np.array_equal(other, wanted.transpose(2, 0, 1))
    assert other.flags.c_contiguous


def test_invalid_labels_are_refused(tmp_path: Path) -> None:
    scan = read_volume(save_nifti_bytes(tmp_path / "scan.nii.gz", make_voxels("int16")))
    label = tmp_path / "label.nii.gz"
    for array, words in (
        (np.full(SHAPE, 0.5, np.float32), "expected whole numbers"),
        (np.full(SHAPE, -1, np.int16), "values from -1 to -1"),
        (np.full(SHAPE, 256, np.int16), "values from 256 to 256"),
        (np.full(SHAPE, np.nan, np.float32), "contains NaN"),
    ):
        with pytest.raises(LabelError, match=words):
            read_label(save_nifti_bytes(label, array), reference=scan)
    moved = AFFINE.copy()
    moved[0, 3] += 0.01
    with pytest.raises(GeometryError, match=r"label.nii.gz does not fit scan.nii.gz.*0.01 mm"):
        read_label(save_nifti_bytes(label, make_voxels("uint8"), moved), reference=scan)
    with pytest.raises(GeometryError, match=r"shapes differ: .* against .* voxels"):
        read_label(save_nifti_bytes(label, make_voxels("uint8", (3, 4, 6))), reference=scan)
    # A float label of whole numbers, a shift below the tolerance, one value everywhere: all fine.
    moved[0, 3] -= 0.0095
    path = save_nifti_bytes(label, np.full(SHAPE, 255.0), moved)
    assert set(np.unique(read_label(path, reference=scan).array)) == {255}


def test_a_label_stored_on_other_axes_still_fits(tmp_path: Path) -> None:
    """Two programs may store one grid along other axes; what counts is where voxels lie."""
    scan = nib.Nifti1Image(make_voxels("uint8"), AFFINE)
    nib.save(scan, tmp_path / "scan.nii.gz")
    other = scan.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    nib.save(other, tmp_path / "label.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")
    label = read_label(tmp_path / "label.nii.gz", reference=volume)
    assert grid_difference(label, volume) is None
    assert np.array_equal(label.array, volume.array)


def test_writing_refuses_mismatched_arrays(tmp_path: Path) -> None:
    volume = read_volume(save_nifti_bytes(tmp_path / "scan.nii.gz", make_voxels("int16")))
    with pytest.raises(GeometryError, match="cannot be written on a grid"):
        write_mask(np.zeros((2, 2, 2), np.uint8), reference=volume, path=tmp_path / "a.nii.gz")
    for value in (-1, 256):
        with pytest.raises(LabelError, match="expected 0 to 255"):
            write_mask(np.full(volume.shape, value), reference=volume, path=tmp_path / "a.nii.gz")
    assert not (tmp_path / "a.nii.gz").exists()


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = read_volume(save_nifti_bytes(tmp_path / "scan.nii.gz", make_voxels("uint8")))
    write_mask(volume.array, reference=volume, path=tmp_path / "a.nii.gz")
    before = (tmp_path / "a.nii.gz").read_bytes()

    def broken(_: object, file: BinaryIO) -> None:
        file.write(b"some bytes")
        raise ValueError("no bytes")

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", broken)
    with pytest.raises(ValueError, match="no bytes"):
        write_mask(1 - volume.array, reference=volume, path=tmp_path / "a.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"a.nii.gz", "scan.nii.gz"}
