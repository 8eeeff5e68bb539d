"""Decompression bombs, and headers with impossible sizes."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from helpers.dicom_files import compress_file, make_voxels, save_series
from helpers.nifti_files import save_nifti
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLosslessSV1, JPEGLSLossless

from napari_dycon import io
from napari_dycon.errors import FileFormatError, UserError
from napari_dycon.io import validation
from napari_dycon.io.dicom import files
from napari_dycon.io.dicom.codestream import jpeg_dimensions
from napari_dycon.project.store import Project

MB = 2**20
ROOT = Path(io.__file__).parents[2]


def make_header(shape: tuple[int, ...], dtype: str = "int16", **fields: object) -> bytes:
    made = nib.Nifti1Header()
    made.set_data_dtype(dtype)
    made.set_data_shape(shape)
    made["magic"], made["vox_offset"] = b"n+1", 352
    for name, value in fields.items():
        made[name] = value
    return bytes(made.binaryblock)


def compress_zeros(count: int, head: bytes = b"") -> bytes:
    """Gzip file of a head and many zeros, made without having them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts, piece = [packer.compress(head)], bytes(MB)
    parts += [packer.compress(piece) for _ in range(count // MB)]
    return b"".join(parts) + packer.flush()


def measure_peak_memory(read: Callable[[], object]) -> int:
    """Most bytes that Python takes, of an attempt that has to be refused."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("place", ["scan", "label", "prediction"])
def test_a_gzip_bomb_is_refused_before_decompression(
    place: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = project.runs.create("dycon", {})
    path = {
        "scan": tmp_path / "scans" / "images" / "scan-0.nii.gz",
        "label": project.labels.path("scan-0"),
        "prediction": project.predictions.path(run.id, "scan-0"),
    }[place]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compress_zeros(256 * MB, make_header((512, 512, 512)) + bytes(4)))
    assert path.stat().st_size < MB
    monkeypatch.setattr(validation, "available_memory", lambda: 128 * MB)
    reads = {
        "scan": lambda: project.read_image("scan-0"),
        "label": lambda: project.labels.read("scan-0"),
        "prediction": lambda: project.predictions.read(run.id, "scan-0"),
    }
    assert measure_peak_memory(reads[place]) < 20 * MB
    with pytest.raises(FileFormatError, match="does not fit into this computer's memory: its vox"):
        reads[place]()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("length", [2**31 - 16, -8, -16, 0, 8, 100 * MB])
def test_header_extensions_are_not_read(ending: str, length: int, tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    head = make_header(array.shape, sform_code=1, srow_x=(1, 0, 0, 0), srow_y=(0, 1, 0, 0),
                  srow_z=(0, 0, 1, 0), vox_offset=384)  # fmt: skip
    data = head + b"\1\0\0\0" + struct.pack("<ii", length, 2) + bytes(24) + array.tobytes("F")
    path = tmp_path / f"scan{ending}"
    path.write_bytes(compress_zeros(64 * MB, data) if ending == ".nii.gz" else data)
    tracemalloc.start()
    try:
        volume = io.read_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 20 * MB
    finally:
        tracemalloc.stop()
    assert sorted(volume.array.ravel().tolist()) == list(range(60))


@pytest.mark.parametrize(
    "fields",
    [
        {"vox_offset": 2.0**31},
        {"vox_offset": np.nan},
        {"vox_offset": np.inf},
        {"vox_offset": -352},
        {"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]},
        {"dim": [3, -5, 4, 5, 1, 1, 1, 1]},
        {"dim": [7, 32767, 32767, 32767, 32767, 32767, 32767, 32767]},
        {"dim": [0, 1, 1, 1, 1, 1, 1, 1]},
        {"dim": [99, 3, 4, 5, 1, 1, 1, 1]},
        {"datatype": 9999},
        {"datatype": 0},
        {"scl_slope": np.nan, "dim": [3, 9, 9, 999, 1, 1, 1, 1]},
        {"sizeof_hdr": 7},
    ],
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_implausible_nifti_headers_are_refused(
    fields: dict[str, object], ending: str, tmp_path: Path
) -> None:
    data = make_header((3, 4, 5), **fields) + bytes(4) + bytes(120)
    path = tmp_path / f"scan{ending}"
    path.write_bytes(gzip.compress(data) if ending == ".nii.gz" else data)
    assert measure_peak_memory(lambda: io.read_volume(path)) < 20 * MB


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_compressed_nrrd_and_metaimage_have_limits(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"scan{ending}"
    array = np.zeros((256, 256, 256), np.int16)
    array[0, 0, 0] = 1
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path), True)
    assert path.stat().st_size < MB
    monkeypatch.setattr(validation, "available_memory", lambda: 8 * MB)
    with pytest.raises(FileFormatError, match="does not fit into this computer's memory"):
        io.read_volume(path)


@pytest.mark.parametrize("field", ["CompressedDataSize = 999999999999", "HeaderSize = 99999999999"])
def test_a_metaimage_cannot_declare_more_data_than_it_contains(field: str, tmp_path: Path) -> None:
    path = tmp_path / "scan.mha"
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    sitk.WriteImage(image, str(path), True)
    data = path.read_bytes()
    lines = [line for line in data.split(b"\n") if not line.startswith(field.split()[0].encode())]
    path.write_bytes(b"\n".join([*lines[:2], field.encode(), *lines[2:]]))
    with pytest.raises(FileFormatError, match=r"more data than it has|cannot be read"):
        io.read_volume(path)


def test_a_nested_gzip_is_decompressed_once(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    inner = compress_zeros(64 * MB, make_header((9, 9, 9)))
    path.write_bytes(gzip.compress(inner))
    assert measure_peak_memory(lambda: io.read_volume(path)) < 20 * MB


# ---- DICOM ---------------------------------------------------------------------------------------


def write_deflated_file(path: Path, more: int) -> None:
    """Pack all of a file, with so many zeros in a private element."""
    data = dcmread(path)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.add_new(0x00091002, "OB", bytes(more))
    data.save_as(path)


def test_deflated_files_open_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = save_series(tmp_path / "s", make_voxels())
    whole = io.read_volume(tmp_path / "s").array
    for path in paths:
        write_deflated_file(path, 2)
    assert np.array_equal(io.read_volume(tmp_path / "s").array, whole)
    monkeypatch.setattr(files, "MAX_INFLATED_BYTES", 4 * MB)
    write_deflated_file(paths[0], 64 * MB)
    assert paths[0].stat().st_size < MB
    with pytest.raises(FileFormatError, match=r"decompresses to more than"):
        files.read_file(paths[0], include_pixels=False)
    assert measure_peak_memory(lambda: files.read_file(paths[0], include_pixels=True)) < 20 * MB
    for path in paths:
        write_deflated_file(path, 64 * MB)
    with pytest.raises(FileFormatError, match="no DICOM images"):
        io.read_volume(tmp_path / "s")


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless])
def test_compressed_pixels_must_have_the_size_in_their_header(syntax: str, tmp_path: Path) -> None:
    (path, *_) = save_series(tmp_path / "s", make_voxels(dtype="uint16"))
    for other in (tmp_path / "s").iterdir():
        compress_file(other, syntax)
    io.read_volume(tmp_path / "s")
    data = dcmread(path)
    frame = bytearray(next(generate_frames(data.PixelData, number_of_frames=1)))
    assert jpeg_dimensions(bytes(frame)) == (data.Rows, data.Columns)
    at = next(n for n in range(len(frame)) if frame[n] == 0xFF and frame[n + 1] in (0xC3, 0xF7))
    frame[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    assert jpeg_dimensions(bytes(frame)) == (65535, 65535)
    data.PixelData = encapsulate([bytes(frame)])
    data.save_as(path)
    with pytest.raises(FileFormatError, match="damaged"):
        io.read_volume(tmp_path / "s")


def test_codestream_sizes_are_checked() -> None:
    siz = b"\xff\x4f\xff\x51\0\x2f\0\0" + struct.pack(">IIII", 70, 60, 10, 20)
    assert jpeg_dimensions(siz) == (40, 60)
    assert jpeg_dimensions(b"") is jpeg_dimensions(b"\xff\xd8") is jpeg_dimensions(b"RLE") is None
    assert jpeg_dimensions(b"\xff\xd8" + b"\xff" * 50) is None
    assert jpeg_dimensions(b"\xff\xd8\xff\xe0\0\0" * 50) is None
    app = b"\xff\xe0\0\x04ab"
    assert jpeg_dimensions(b"\xff\xd8" + app + b"\xff\xc0\0\x11\x08\0\x07\0\x09") == (7, 9)


def test_a_dicom_file_with_more_pixels_than_bytes_is_refused(tmp_path: Path) -> None:
    paths = save_series(tmp_path / "s", make_voxels())
    for path in paths:
        data = dcmread(path)
        data.Rows = data.Columns = 65535
        data.save_as(path)
    with pytest.raises(FileFormatError):
        io.read_volume(tmp_path / "s")


def test_reading_needs_no_psutil() -> None:
    code = (
        "import sys; sys.modules['psutil'] = None\n"
        "from napari_dycon.core import available_memory\n"
        "available_memory.PROCESS_CGROUPS = available_memory.PROCESS_CGROUPS / 'none'\n"
        "assert available_memory.available_memory() is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_scan_that_fits_is_read(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    assert io.read_volume(path).shape == (5, 4, 3)
