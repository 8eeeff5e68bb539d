"""One DICOM file: its header or all of it, in words when it is damaged, without a sound."""

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

MAX_INFLATED_BYTES = 2**30  # bytes
CHUNK_BYTES = 2**22  # of them at a time
SUFFIXES = (".dcm", ".ima", ".dicom")


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by its mark, or else by its name.

    A file that may not be read raises: a slice that is passed over would be missed by nobody.
    """
    try:
        with path.open("rb") as file:
            has_magic = file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise FileFormatError(
            f"{path.name} in {path.parent} cannot be read ({error.strerror}). Expected files that "
            "you may read; change who may, or move it away."
        ) from None
    return has_magic or path.suffix.lower() in SUFFIXES


def read_file(path: Path, *, include_pixels: bool, tags: list[str] | None = None) -> Any:
    """Read a file with pydicom: some elements of its header, all of it, or with its pixels."""
    import pydicom

    try:
        with suppress_warnings(), _LimitedInflater(io.FileIO(path)) as file:
            data = pydicom.dcmread(
                file, force=True, stop_before_pixels=not include_pixels, specific_tags=tags
            )
    except _TooLargeError:
        raise FileFormatError(
            f"{path.name} unpacks to more than {MAX_INFLATED_BYTES / 2**30:g} GB, which no image "
            "of one file does; it was not opened. Choose another series, or export it again."
        ) from None
    except Exception:  # pydicom raises whatever its parsing meets
        raise damaged_file_error(path) from None
    if include_pixels:
        try:
            with suppress_warnings():
                samples = int(data.get("SamplesPerPixel", 1))
                voxels = float(data.Rows) * data.Columns * int(data.get("NumberOfFrames") or 1)
                if "TransferSyntaxUID" not in data.file_meta:  # of files without the mark
                    data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
                is_compressed = bool(data.file_meta.TransferSyntaxUID.is_compressed)
        except Exception:  # pydicom parses elements when they are asked for
            raise damaged_file_error(path) from None
        if samples != 1:
            raise FileFormatError(
                f"{path.name} holds colors; expected one number a voxel. Choose another series."
            )
        if not 0 < voxels <= path.stat().st_size * (MAX_DEFLATE_RATIO if is_compressed else 1):
            raise damaged_file_error(path)
    return data


class _TooLargeError(Exception):
    """A packed file that is larger than any."""


class _LimitedInflater(io.BufferedReader):
    """A file of which pydicom asks for all the rest only to inflate it, in memory, at once."""

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
                pass  # pydicom says so, too
        return data


def header_text(header: Any, name: str) -> str:
    """Return an element as text; "" where it is missing or damaged."""
    try:
        value = header.get(name)
    except Exception:  # a damaged element is parsed when it is asked for
        return ""
    return "" if value is None else str(value)


def damaged_file_error(path: Path) -> FileFormatError:
    """Error of a file that is no image or not a whole one."""
    return FileFormatError(
        f"{path.name} cannot be read: it is damaged or no DICOM image. Expected the images of one "
        "series; copy or export it again."
    )


@contextlib.contextmanager
def suppress_warnings() -> Iterator[None]:
    """Keep what pydicom and highdicom say of a header's values from standing in a log.

    They quote the values, a patient's name among them.
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
