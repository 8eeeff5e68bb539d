"""Reading of single DICOM files, with readable errors and without warnings in the log."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari_dycon.errors import FileFormatError
from napari_dycon.io.validation import MAX_DEFLATE_RATIO

MAX_INFLATED_BYTES = 2**30
CHUNK_BYTES = 2**22
SUFFIXES = (".dcm", ".ima", ".dicom")


def is_dicom(path: Path) -> bool:
    """Check whether a file is DICOM by its magic bytes or its name.

    An unreadable file raises, since ignoring a slice would go unnoticed.
    """
    try:
        with path.open("rb") as file:
            has_magic = file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise FileFormatError(
            f"{path.name} in {path.parent} cannot be read ({error.strerror}). Change its "
            "permissions, or move it to another folder."
        ) from None
    return has_magic or path.suffix.lower() in SUFFIXES


def read_file(path: Path, *, include_pixels: bool, tags: list[str] | None = None) -> Any:
    """Read a file with pydicom: some header elements, the whole header, or with pixels."""
    import pydicom

    try:
        with suppress_warnings(), _LimitedInflater(io.FileIO(path)) as file:
            data = pydicom.dcmread(
                file, force=True, stop_before_pixels=not include_pixels, specific_tags=tags
            )
    except _TooLargeError:
        raise FileFormatError(
            f"{path.name} decompresses to more than {MAX_INFLATED_BYTES / 2**30:g} GB, the limit "
            "for one file; it was not opened. Choose another series, or export it again."
        ) from None
    except Exception:  # noqa: BLE001 - pydicom raises any error while parsing
        raise damaged_file_error(path) from None
    if include_pixels:
        try:
            with suppress_warnings():
                samples = int(data.get("SamplesPerPixel", 1))
                voxels = float(data.Rows) * data.Columns * int(data.get("NumberOfFrames") or 1)
                if "TransferSyntaxUID" not in data.file_meta:  # in files without magic bytes
                    data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
                is_compressed = bool(data.file_meta.TransferSyntaxUID.is_compressed)
        except Exception:  # noqa: BLE001 - pydicom parses elements lazily
            raise damaged_file_error(path) from None
        if samples != 1:
            raise FileFormatError(
                f"{path.name} contains colors; expected one value per voxel. Choose another series."
            )
        if not 0 < voxels <= path.stat().st_size * (MAX_DEFLATE_RATIO if is_compressed else 1):
            raise damaged_file_error(path)
    return data


class _TooLargeError(Exception):
    """A file decompresses to more than the limit."""


class _LimitedInflater(io.BufferedReader):
    """A file whose remainder, which pydicom reads only to inflate it, is limited in size."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size is None or size < 0:
            inflater, remaining, total = zlib.decompressobj(-zlib.MAX_WBITS), data, 0
            try:
                while remaining and not inflater.eof:
                    total += len(inflater.decompress(remaining, CHUNK_BYTES))
                    remaining = inflater.unconsumed_tail
                    if total > MAX_INFLATED_BYTES:
                        raise _TooLargeError
            except zlib.error:
                pass  # pydicom reports the error
        return data


def header_text(header: Any, name: str) -> str:
    """Return an element as text; "" if it is missing or damaged."""
    try:
        value = header.get(name)
    except Exception:  # noqa: BLE001 - pydicom parses elements lazily
        return ""
    return "" if value is None else str(value)


def damaged_file_error(path: Path) -> FileFormatError:
    """Build the error for a file that is not an image or is truncated."""
    return FileFormatError(
        f"{path.name} cannot be read: it is damaged or not a DICOM image. Expected the images of "
        "one series; copy or export it again."
    )


@contextlib.contextmanager
def suppress_warnings() -> Iterator[None]:
    """Suppress warnings and log records of pydicom and highdicom.

    They may quote header values, such as a patient's name.
    """
    loggers = [logging.getLogger(name) for name in ("highdicom.base", "pydicom")]

    def reject_record(_: logging.LogRecord) -> bool:
        return False

    for logger in loggers:
        logger.addFilter(reject_record)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(reject_record)
