"""NIfTI beyond the everyday file: number types, header variants, privacy, damaged bytes."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from napari_dycon.errors import FileFormatError, GeometryError, LabelError, UserError
from napari_dycon.io import gzip as unpacking
from napari_dycon.io import (
    is_scan,
    nifti,
    read_label,
    read_volume,
    scan_name,
    write_map,
    write_mask,
)
from napari_dycon.io.volume import Source, Volume, grid_difference, to_contiguous

ORIENTATIONS = [
    "".join(codes)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*order)
]
SHAPE = (3, 4, 5)
AFFINE = np.array([[0, 0, -0.7, 31.5], [1.1, 0, 0, -12.25], [0, 2.5, 0, 7.125], [0, 0, 0, 1.0]])
GEOMETRY = (
    *("qform_code", "sform_code", "pixdim", "xyzt_units", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)


def stored(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray = AFFINE,
    *,
    codes: tuple[int, int] = (1, 1),
    kind: type[nib.Nifti1Image] = nib.Nifti1Image,
    endian: str = "<",
) -> Path:
    """Write a file with the q and s codes and the byte order asked for."""
    header = kind.header_class(endianness=endian)
    header.set_data_dtype(array.dtype)
    image = kind(array, affine, header)
    image.set_qform(affine, code=codes[0])
    image.set_sform(affine, code=codes[1])
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


def voxels(dtype: str, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def assert_same_geometry(path: Path, other: Path) -> None:
    a, b = nib.load(path), nib.load(other)
    assert np.array_equal(a.affine, b.affine)
    for field in GEOMETRY:
        assert np.array_equal(a.header[field], b.header[field]), field


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_turning_agrees_with_nibabel(codes: str, tmp_path: Path) -> None:
    affine = np.array([[0, 0, 0, 31.5], [0, 0, 0, -12.25], [0, 0, 0, 7.125], [0, 0, 0, 1]])
    for axis, (world, sign) in enumerate(orientations.axcodes2ornt(codes).astype(int)):
        affine[world, axis] = sign * (0.7, 1.1, 2.5)[axis]
    assert "".join(nib.aff2axcodes(affine)) == codes
    for dtype in ("uint8", "int16", "float32"):
        path = stored(tmp_path / f"{dtype}.nii", voxels(dtype), affine)
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
        assert np.array_equal(nib.load(tmp_path / "map.nii").get_fdata(), voxels(dtype))
        assert_same_geometry(path, tmp_path / "map.nii")


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (0, 0), (2, 4), (3, 3)])
def test_codes_are_kept(codes: tuple[int, int], tmp_path: Path) -> None:
    path = stored(tmp_path / "a.nii.gz", voxels("uint8"), codes=codes)
    volume = read_volume(path)
    write_mask(volume.array, reference=volume, path=tmp_path / "b.nii.gz")
    assert_same_geometry(path, tmp_path / "b.nii.gz")
    assert np.array_equal(nib.load(tmp_path / "b.nii.gz").dataobj, voxels("uint8"))


def test_q_and_s_forms_that_disagree_stay_as_they_are(tmp_path: Path) -> None:
    image = nib.Nifti1Image(voxels("uint8"), AFFINE)
    image.set_qform(np.diag([2.0, 2.0, 2.0, 1.0]), code=1)
    image.set_sform(AFFINE, code=2)
    nib.save(image, tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    write_mask(volume.array, reference=volume, path=tmp_path / "b.nii.gz")
    assert_same_geometry(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_versions_and_both_byte_orders(
    kind: type[nib.Nifti1Image], endian: str, tmp_path: Path
) -> None:
    path = stored(tmp_path / "a.nii.gz", voxels(f"{endian}i2"), kind=kind, endian=endian)
    assert nib.load(path).header.endianness == endian
    volume = read_volume(path)
    assert volume.array.dtype == np.int16
    assert volume.array.dtype.isnative
    write_mask(volume.array, reference=volume, path=tmp_path / "b.nii.gz")
    back = nib.load(tmp_path / "b.nii.gz")
    assert isinstance(back, kind)
    assert back.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(back.dataobj), voxels("uint8"))
    assert_same_geometry(path, tmp_path / "b.nii.gz")
    write_map(volume.array / 7, reference=volume, path=tmp_path / "c.nii.gz")
    assert np.array_equal(
        nib.load(tmp_path / "c.nii.gz").get_fdata(dtype=np.float32),
        (voxels("int16") / 7).astype(np.float32),
    )


def test_scaled_and_four_dimensional_headers_give_plain_masks(tmp_path: Path) -> None:
    image = nib.Nifti1Image(voxels("int16", (*SHAPE, 1, 1)), AFFINE)
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


def test_nothing_that_names_a_patient_is_passed_on(tmp_path: Path) -> None:
    image = nib.Nifti1Image(voxels("uint8"), AFFINE)
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
        assert np.array_equal(back.get_fdata(), voxels("uint8"))
        for field in ("data_type", "descrip", "intent_name", "db_name", "aux_file"):
            assert back.header[field].item() == b""
    # The scan itself is never touched.
    assert nib.load(tmp_path / "MUSTERMANN.nii.gz").header["descrip"].item() == b"MUSTERMANN"


def test_the_same_mask_gives_the_same_bytes(tmp_path: Path) -> None:
    volume = read_volume(stored(tmp_path / "a.nii.gz", voxels("uint8")))
    for name in ("b.nii.gz", "c.nii.gz"):
        write_mask(volume.array, reference=volume, path=tmp_path / name)
    assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()


def test_a_volume_without_a_file_can_be_written(tmp_path: Path) -> None:
    affine = np.array([[0, 0, -1.0, 9], [0, -1.0, 0, 8], [2.0, 0, 0, 7], [0, 0, 0, 1]])
    array = voxels("uint8")
    volume = Volume(array, affine, Source(None, SHAPE, affine))
    write_mask(array, reference=volume, path=tmp_path / "a.nii.gz")
    back = read_label(tmp_path / "a.nii.gz", reference=volume)
    assert np.array_equal(back.array, array)
    assert nib.load(tmp_path / "a.nii.gz").header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(
    ("set_name", "pattern"),
    [("hippocampus", "images/*"), ("left-atrium", "images/*"), ("ms-lesions", "imagesTr/*")],
)
def test_real_scans_are_read_where_nibabel_puts_them(
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


# ---- What is refused -------------------------------------------------------------------------


def refused(path: Path, words: str, error: type[UserError] = FileFormatError) -> None:
    """Reading fails with one line that names the file."""
    with pytest.raises(error, match=words) as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def test_bytes_that_are_no_scan(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    path.write_text("not a scan, but long enough for a header. " * 20)
    refused(path, "are not valid NIfTI")
    path.write_bytes(b"")
    refused(path, "it is empty")
    whole = stored(tmp_path / "whole.nii", voxels("int16", (20, 20, 20))).read_bytes()
    for size in (1, 100, 348, 352, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(path, "cannot be read")
    packed = gzip.compress(whole)
    path = tmp_path / "scan.nii.gz"
    for size in (1, 5, 30, len(packed) // 2, len(packed) - 20):
        path.write_bytes(packed[:size])
        refused(path, "cannot be read")
    path.write_bytes(gzip.compress(b""))
    refused(path, "is truncated")
    path.write_bytes(gzip.compress(b"a diary in a compressed file. " * 50))
    refused(path, "are not valid NIfTI")


def test_other_suffixes_are_no_scans(tmp_path: Path) -> None:
    path = tmp_path / "scan.txt"
    path.write_bytes(b"NRRD0004")
    refused(path, "expected NIfTI")
    assert is_scan("A.NII.GZ")
    assert not is_scan(".hidden.nii.gz")
    assert scan_name("folder/a.b.Nii.Gz") == "a.b"
    assert scan_name("a.nii") == "a"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers(value: float, tmp_path: Path) -> None:
    array = voxels("float32")
    array[1, 2] = value
    refused(stored(tmp_path / "a.nii", array), "5 voxels that are not finite")
    assert not np.isfinite(read_volume(tmp_path / "a.nii", check_values=False).array).all()


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((4, 5), "is not 3D .4 × 5 voxels."),
        ((4, 5, 1), "is not 3D"),
        ((1, 4, 5), "is not 3D"),
        ((3, 4, 5, 2), "is 4D .3 × 4 × 5 × 2.*one file per channel"),
        ((3, 4, 5, 1, 3), "is not 3D"),
    ],
)
def test_dimensions_that_are_no_volume(shape: tuple[int, ...], words: str, tmp_path: Path) -> None:
    refused(stored(tmp_path / "a.nii.gz", voxels("int16", shape)), words)


def test_color_and_complex_voxels(tmp_path: Path) -> None:
    color = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(stored(tmp_path / "a.nii", color), "color or complex")
    refused(stored(tmp_path / "b.nii", voxels("complex64")), "color or complex")


@pytest.mark.parametrize("row", [[0, 0, 0, 0], [1, 0, 0, 0], [np.nan, 0, 0, 0], [np.inf, 0, 0, 0]])
def test_an_affine_that_cannot_be_used(row: list[float], tmp_path: Path) -> None:
    path = stored(tmp_path / "a.nii", voxels("uint8"), np.eye(4), codes=(0, 1))
    raw = bytearray(path.read_bytes())
    raw[280:296] = np.array([0, 1, 0, 0] if row[0] == 1 else row, "<f4").tobytes()  # "srow_x"
    path.write_bytes(raw)
    refused(path, "no usable geometry", GeometryError)


def with_dim(path: Path, dim: list[int]) -> Path:
    """Overwrite the field "dim" of a little-endian NIfTI-1 file."""
    raw = bytearray(path.read_bytes())
    raw[40:56] = np.array([*dim, *[1] * 8][:8], "<i2").tobytes()
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("dim", "words"),
    [
        ([3, 32767, 32767, 32767], "too many for a scan"),
        ([3, 4, 0, 5], "too many for a scan|cannot be read"),
        ([3, -4, 4, 5], "too many for a scan|cannot be read"),
        ([3, 2000, 2000, 2000], "is truncated"),
        ([0, 3, 4, 5], "not 3D|cannot be read"),
        ([99, 3, 4, 5], "cannot be read"),
    ],
)
def test_absurd_dimensions_allocate_nothing(dim: list[int], words: str, tmp_path: Path) -> None:
    refused(with_dim(stored(tmp_path / "a.nii", voxels("uint8")), dim), words)


def test_a_scan_that_does_not_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(nib.arrayproxy.ArrayProxy, "__array__", full)
    refused(stored(tmp_path / "a.nii", voxels("float32")), "memory")
    monkeypatch.setattr(nifti, "read_gzip_voxels", full)
    refused(stored(tmp_path / "a.nii.gz", voxels("float32")), "memory")


def test_packed_voxels_are_compared_with_their_checksum(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.nii.gz", voxels("int16", (20, 20, 20)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
    refused(path, "cannot be read")


@pytest.mark.parametrize("dtype", ["uint8", ">i2", "<f4", ">f8"])
def test_unpacking_is_the_same_with_and_without_isal(
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
def test_voxels_are_put_in_order_within_their_memory(
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


def test_damaged_headers_never_escape_as_other_errors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = stored(tmp_path / "whole.nii", voxels("uint8")).read_bytes()
    rng = random.Random(0)
    path = tmp_path / "damaged.nii.gz"
    for _ in range(300):
        raw = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            raw[rng.randrange(348)] = rng.randrange(256)
        path.write_bytes(gzip.compress(bytes(raw), 1))
        with contextlib.suppress(UserError):
            read_volume(path)
    # nibabel's own notes on a header would stand before the one line that people read.
    assert caplog.records == []


# ---- Labels and writing ----------------------------------------------------------------------


def test_labels_that_are_no_labels(tmp_path: Path) -> None:
    scan = read_volume(stored(tmp_path / "scan.nii.gz", voxels("int16")))
    label = tmp_path / "label.nii.gz"
    for array, words in (
        (np.full(SHAPE, 0.5, np.float32), "expected whole numbers"),
        (np.full(SHAPE, -1, np.int16), "values from -1 to -1"),
        (np.full(SHAPE, 256, np.int16), "values from 256 to 256"),
        (np.full(SHAPE, np.nan, np.float32), "contains NaN"),
    ):
        with pytest.raises(LabelError, match=words):
            read_label(stored(label, array), reference=scan)
    moved = AFFINE.copy()
    moved[0, 3] += 0.01
    with pytest.raises(GeometryError, match=r"label.nii.gz does not fit scan.nii.gz.*0.01 mm"):
        read_label(stored(label, voxels("uint8"), moved), reference=scan)
    with pytest.raises(GeometryError, match=r"shapes differ: .* against .* voxels"):
        read_label(stored(label, voxels("uint8", (3, 4, 6))), reference=scan)
    # A float label of whole numbers, a shift below the tolerance, one value everywhere: all fine.
    moved[0, 3] -= 0.0095
    path = stored(label, np.full(SHAPE, 255.0), moved)
    assert set(np.unique(read_label(path, reference=scan).array)) == {255}


def test_a_label_stored_on_other_axes_still_fits(tmp_path: Path) -> None:
    """Two programs may store one grid along other axes; what counts is where voxels lie."""
    scan = nib.Nifti1Image(voxels("uint8"), AFFINE)
    nib.save(scan, tmp_path / "scan.nii.gz")
    other = scan.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    nib.save(other, tmp_path / "label.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")
    label = read_label(tmp_path / "label.nii.gz", reference=volume)
    assert grid_difference(label, volume) is None
    assert np.array_equal(label.array, volume.array)


def test_writing_refuses_what_does_not_fit(tmp_path: Path) -> None:
    volume = read_volume(stored(tmp_path / "scan.nii.gz", voxels("int16")))
    with pytest.raises(GeometryError, match="cannot be written on a grid"):
        write_mask(np.zeros((2, 2, 2), np.uint8), reference=volume, path=tmp_path / "a.nii.gz")
    for value in (-1, 256):
        with pytest.raises(LabelError, match="expected 0 to 255"):
            write_mask(np.full(volume.shape, value), reference=volume, path=tmp_path / "a.nii.gz")
    assert not (tmp_path / "a.nii.gz").exists()


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = read_volume(stored(tmp_path / "scan.nii.gz", voxels("uint8")))
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
