"""Compressed pixels of DICOM files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import (
    compress_file,
    make_voxels,
    save_enhanced,
    save_series,
)
from pydicom import uid as uids
from pydicom.encaps import encapsulate

from napari_dycon.errors import FileFormatError
from napari_dycon.io import read_volume
from napari_dycon.io.volume import from_canonical

LOSSLESS = {
    "RLE": uids.RLELossless,
    "JPEG-LS": uids.JPEGLSLossless,
    "JPEG 2000": uids.JPEG2000Lossless,
    "JPEG process 14": uids.JPEGLossless,
    "JPEG process 14 SV1": uids.JPEGLosslessSV1,
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("name", LOSSLESS)
def test_losslessly_compressed_pixels_are_restored_exactly(
    name: str, dtype: str, tmp_path: Path
) -> None:
    """Each file holds its own rescaling, which no decoder may apply or forget."""
    noise = np.random.default_rng(0).integers(0, 250, (4, 20, 24))
    voxels = (noise - 120 if dtype == "int16" else noise).astype(dtype)
    voxels = voxels if dtype == "uint8" else voxels * 13

    def rescaled(data: Any, number: int) -> None:
        data.RescaleSlope, data.RescaleIntercept = 1 + number, -7

    paths = save_series(tmp_path / "s", voxels, change=rescaled)
    for path in paths:
        compress_file(path, LOSSLESS[name])
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == LOSSLESS[name]
    volume = read_volume(tmp_path / "s")
    own = from_canonical(volume.array, volume.source).transpose(2, 1, 0)
    assert np.array_equal(own, voxels.astype(int) * np.arange(1, 5)[:, None, None] - 7)


LOSSY = {
    "JPEG baseline": (uids.JPEGBaseline8Bit, 6),
    "JPEG-LS": (uids.JPEGLSNearLossless, 2),
    "JPEG 2000": (uids.JPEG2000, 6),
}


@pytest.mark.parametrize("name", LOSSY)
def test_lossily_compressed_pixels_are_restored_approximately(name: str, tmp_path: Path) -> None:
    rows, columns = np.indices((20, 24))
    voxels = np.stack([3 * rows + 4 * columns + k for k in range(4)]).astype(np.uint8)
    for path in save_series(tmp_path / "s", voxels):
        compress_file(path, LOSSY[name][0])
    volume = read_volume(tmp_path / "s")
    own = from_canonical(volume.array, volume.source).transpose(2, 1, 0)
    assert np.abs(own.astype(int) - voxels).max() <= LOSSY[name][1]


@pytest.mark.parametrize("name", LOSSLESS)
def test_compressed_frames_of_one_file_are_read(name: str, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 4000, (5, 20, 24)).astype("<u2")
    scaling = [(0.5 * (k + 1), -3.0 * k) for k in range(5)]
    path = tmp_path / "s" / "one.dcm"
    save_enhanced(path, voxels, order=[3, 0, 4, 1, 2], rescale=scaling)
    compress_file(path, LOSSLESS[name])
    volume = read_volume(path)
    own = from_canonical(volume.array, volume.source).transpose(2, 1, 0)
    slopes, intercepts = np.array(scaling).T[..., None, None]
    assert np.allclose(own, voxels * slopes + intercepts, rtol=1e-6)


def test_damaged_compressed_pixels_are_refused(tmp_path: Path) -> None:
    for path in save_series(tmp_path / "s", make_voxels((4, 20, 24))):
        compress_file(path, uids.JPEGLosslessSV1)
    data = pydicom.dcmread(path)
    data.PixelData = encapsulate([b"\xff\xd8no picture\xff\xd9"])
    data.save_as(path)
    with pytest.raises(FileFormatError, match=r"IM0004.dcm is damaged, or its compression"):
        read_volume(tmp_path / "s")


def test_a_damaged_list_of_compressed_fragments_is_refused(tmp_path: Path) -> None:
    """GDCM, which may search such a file without end, never sees it."""
    for path in save_series(tmp_path / "s", make_voxels((4, 20, 24))):
        compress_file(path, uids.JPEGLosslessSV1)
    whole = path.read_bytes()
    item = whole.index(b"\xfe\xff\x00\xe0", whole.index(b"\xe0\x7f\x10\x00"))
    for length in (3, 4095, 2**31):
        path.write_bytes(whole[: item + 4] + length.to_bytes(4, "little") + whole[item + 8 :])
        with pytest.raises(FileFormatError, match=r"IM0004.dcm"):
            read_volume(tmp_path / "s")
