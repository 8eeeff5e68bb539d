"""Damaged and untrusted NIfTI files are refused with a clear error."""

from __future__ import annotations

import contextlib
import gzip
import random
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers.stored_nifti import SHAPE, make_voxels, save_nifti_bytes

from napari_dycon.errors import FileFormatError, GeometryError, UserError
from napari_dycon.io import (
    is_scan,
    nifti,
    read_volume,
    scan_name,
)


def check_refused(path: Path, words: str, error: type[UserError] = FileFormatError) -> None:
    """Reading fails with one line that names the file."""
    with pytest.raises(error, match=words) as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def test_arbitrary_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    path.write_text("not a scan, but long enough for a header. " * 20)
    check_refused(path, "are not valid NIfTI")
    path.write_bytes(b"")
    check_refused(path, "it is empty")
    whole = save_nifti_bytes(
        tmp_path / "whole.nii", make_voxels("int16", (20, 20, 20))
    ).read_bytes()
    for size in (1, 100, 348, 352, len(whole) - 1):
        path.write_bytes(whole[:size])
        check_refused(path, "cannot be read")
    packed = gzip.compress(whole)
    path = tmp_path / "scan.nii.gz"
    for size in (1, 5, 30, len(packed) // 2, len(packed) - 20):
        path.write_bytes(packed[:size])
        check_refused(path, "cannot be read")
    path.write_bytes(gzip.compress(b""))
    check_refused(path, "is truncated")
    path.write_bytes(gzip.compress(b"a diary in a compressed file. " * 50))
    check_refused(path, "are not valid NIfTI")


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.txt"
    path.write_bytes(b"NRRD0004")
    check_refused(path, "expected NIfTI")
    assert is_scan("A.NII.GZ")
    assert not is_scan(".hidden.nii.gz")
    assert scan_name("folder/a.b.Nii.Gz") == "a.b"
    assert scan_name("a.nii") == "a"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_numeric_voxels_are_refused(value: float, tmp_path: Path) -> None:
    array = make_voxels("float32")
    array[1, 2] = value
    check_refused(save_nifti_bytes(tmp_path / "a.nii", array), "5 voxels that are not finite")
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
def test_invalid_dimensions_are_refused(shape: tuple[int, ...], words: str, tmp_path: Path) -> None:
    check_refused(save_nifti_bytes(tmp_path / "a.nii.gz", make_voxels("int16", shape)), words)


def test_color_and_complex_voxels_are_refused(tmp_path: Path) -> None:
    color = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    check_refused(save_nifti_bytes(tmp_path / "a.nii", color), "color or complex")
    check_refused(
        save_nifti_bytes(tmp_path / "b.nii", make_voxels("complex64")), "color or complex"
    )


@pytest.mark.parametrize("row", [[0, 0, 0, 0], [1, 0, 0, 0], [np.nan, 0, 0, 0], [np.inf, 0, 0, 0]])
def test_unusable_affines_are_refused(row: list[float], tmp_path: Path) -> None:
    path = save_nifti_bytes(tmp_path / "a.nii", make_voxels("uint8"), np.eye(4), codes=(0, 1))
    raw = bytearray(path.read_bytes())
    raw[280:296] = np.array([0, 1, 0, 0] if row[0] == 1 else row, "<f4").tobytes()  # "srow_x"
    path.write_bytes(raw)
    check_refused(path, "no usable geometry", GeometryError)


def change_dimensions(path: Path, dim: list[int]) -> Path:
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
def test_implausible_dimensions_allocate_no_memory(
    dim: list[int], words: str, tmp_path: Path
) -> None:
    check_refused(
        change_dimensions(save_nifti_bytes(tmp_path / "a.nii", make_voxels("uint8")), dim), words
    )


def test_a_scan_that_does_not_fit_into_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(nib.arrayproxy.ArrayProxy, "__array__", full)
    check_refused(save_nifti_bytes(tmp_path / "a.nii", make_voxels("float32")), "memory")
    monkeypatch.setattr(nifti, "read_gzip_voxels", full)
    check_refused(save_nifti_bytes(tmp_path / "a.nii.gz", make_voxels("float32")), "memory")


def test_compressed_voxels_are_verified_against_their_checksum(tmp_path: Path) -> None:
    path = save_nifti_bytes(tmp_path / "a.nii.gz", make_voxels("int16", (20, 20, 20)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
    check_refused(path, "cannot be read")


def test_damaged_headers_never_escape_as_other_errors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = save_nifti_bytes(tmp_path / "whole.nii", make_voxels("uint8")).read_bytes()
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
