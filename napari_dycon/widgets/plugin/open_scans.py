"""Scans from files to layers; in a window with questions, progress and errors in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.utils.notifications import show_error, show_warning
from qtpy.QtWidgets import QWidget

from napari_dycon.core.text import escape_rich_text
from napari_dycon.errors import FileFormatError, IrregularSlicesError, UserError
from napari_dycon.io import is_scan, read_series, read_volume, scan_name
from napari_dycon.io.dicom.discovery import (
    Series,
    find_series,
    select_single_series,
    series_containing,
)
from napari_dycon.io.volume import Volume
from napari_dycon.widgets.dialogs.progress import CancelledError, Tell, wait_for
from napari_dycon.widgets.dialogs.series_selection import ask_to_resample, choose_series
from napari_dycon.widgets.layers.case_layers import AXIS_LABELS, KEY

LayerData = tuple[Any, dict[str, Any], str]
_Prepared = tuple[Volume, tuple[float, float]]
GRAY = (0.005, 0.995)  # shares of voxels that are darker than black and white
GRAY_VOXELS = 2**20  # that are looked at for it
TOGETHER_S = 5.0


def open_scans(paths: Sequence[Path], window: QWidget | None) -> list[LayerData]:
    """Read scans as layers.

    Parameters
    ----------
    paths : files, or folders of DICOM series
    window : to ask and tell in. Without one nobody is asked, and errors are raised.
    """
    if window is None:
        return [_layer(_prepared(read_volume(path)), scan_name(path)) for path in paths]
    layers = []
    for path in paths:
        if _together.passes(path):
            continue
        try:
            layers += _opened(path, window)
        except UserError as error:
            show_error(escape_rich_text(error))
        except CancelledError:
            pass
        except (MemoryError, OSError) as error:
            show_error(escape_rich_text(_in_words(path, error)))
        finally:
            _together.stay()
    return layers


def _opened(path: Path, window: QWidget) -> list[LayerData]:
    if not path.is_dir() and is_scan(path):
        name = scan_name(path)
        read = wait_for(f"Opening {name}", lambda _: _prepared(read_volume(path)), window)
        return [_layer(read, name)]
    found = _series(path, window)
    volumes = [series for series in found if len(series.slices) > 1]
    if len(volumes) > 1:
        chosen = choose_series(volumes, len(found) - len(volumes), window)
    else:
        series, notes = select_single_series(path, found)
        _tell(notes)
        chosen = [series]
    layers = []
    for series in chosen:
        try:
            layers += _opened_series(series, window)
        except UserError as error:  # the others may be sound
            show_error(escape_rich_text(error))
    return layers


def _series(path: Path, window: QWidget) -> list[Series]:
    """Series of a folder, or those that a file has images of."""

    def look(folder: Path, deep: bool) -> list[Series]:
        return wait_for(
            "Looking for DICOM series",
            lambda tell: find_series(folder, recursive=deep, progress=tell),
            window,
        )

    if path.is_dir():
        return look(path, True)
    try:
        beside = _together.beside.get(path.parent)
        beside = look(path.parent, False) if beside is None else beside
    except CancelledError:
        _together.begin(path, path.parent.iterdir())
        raise
    _together.beside[path.parent] = beside
    found = series_containing(path, beside)
    if found:
        _together.begin(path, (piece.path for series in found for piece in series.slices))
    else:  # one word about all that are no images
        images = {piece.path for series in beside for piece in series.slices}
        _together.begin(path, set(path.parent.iterdir()) - images)
    return found


def _opened_series(series: Series, window: QWidget) -> list[LayerData]:
    name = series.description or scan_name(series.path)

    def work(resample: bool) -> Callable[[Tell], _Prepared]:
        return lambda tell: _prepared(read_series(series, resample=resample, progress=tell))

    try:
        read = wait_for(f"Opening {name}", work(False), window)
    except IrregularSlicesError as error:
        if not ask_to_resample(error, window):
            return []
        read = wait_for(f"Resampling {name}", work(True), window)
    return [_layer(read, name)]


def _prepared(volume: Volume) -> _Prepared:
    """With what takes time of what a layer needs."""
    return volume, gray_range(volume.array)


def _layer(read: _Prepared, name: str) -> LayerData:
    """Data, settings and kind of a layer that shows a volume."""
    volume, gray = read
    _tell(volume.notes)
    return (
        volume.array,
        {
            "name": escape_rich_text(name),
            "scale": volume.spacing_mm,
            "units": ("mm",) * 3,
            "axis_labels": AXIS_LABELS,
            "rgb": False,  # napari guesses it of three sagittal slices
            "contrast_limits": gray,
            "metadata": {KEY: {"source": volume.source}},
        },
        "image",
    )


def _tell(notes: Iterable[str]) -> None:
    for note in notes:
        show_warning(escape_rich_text(note))


def gray_range(array: npt.NDArray[Any]) -> tuple[float, float]:
    """Gray values to show as black and white, of voxels ``(D, H, W)`` spread over the scan."""
    step = max(1, round((array.size / GRAY_VOXELS) ** (1 / 3)))
    some = array[::step, ::step, ::step]
    low, high = (float(v) for v in np.quantile(some, GRAY))
    if low == high:  # a few bright voxels in a dark scan
        low, high = float(array.min()), float(array.max())
    return low, high if high > low else low + 1.0


def _in_words(path: Path, error: Exception) -> UserError:
    if isinstance(error, MemoryError):
        return FileFormatError(
            f"{path.name} does not fit into this computer's memory. Close other programs, or crop "
            "the scan."
        )
    reason = getattr(error, "strerror", None) or "the disk or the network failed"
    return FileFormatError(f"{path.name} could not be read: {reason}. Is it still there?")


class _Together:
    """Files of one series that come one by one because a person chose them all at once.

    napari hands over each file by itself. The first one opens its series, or is asked about; the
    others are passed over.

    Attributes
    ----------
    beside : the series of the folders that were looked through for them
    """

    def __init__(self) -> None:
        self.beside: dict[Path, list[Series]] = {}
        self._files: set[Path] = set()
        self._until = 0.0

    def begin(self, opened: Path, files: Iterable[Path]) -> None:
        """A file opened its series; the same one again is meant as such."""
        self._files |= set(files)
        self._files.discard(opened)

    def passes(self, path: Path) -> bool:
        """Whether a file comes along with one before."""
        if time.monotonic() > self._until:
            self._files.clear()
            self.beside.clear()
        if path not in self._files:
            return False
        self._files.discard(path)
        self.stay()
        return True

    def stay(self) -> None:
        """More files may follow from now on."""
        self._until = time.monotonic() + TOGETHER_S


_together = _Together()
