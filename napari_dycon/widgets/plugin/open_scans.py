"""Opening scans as layers; in a window with prompts, progress and error messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error, show_warning
from qtpy.QtWidgets import QWidget

from napari_dycon.core.text import escape_rich_text
from napari_dycon.core.types import Array
from napari_dycon.errors import FileFormatError, IrregularSlicesError, UserError
from napari_dycon.io import is_scan, read_series, read_volume, scan_name
from napari_dycon.io.dicom.discovery import (
    Series,
    find_series,
    select_single_series,
    series_containing,
)
from napari_dycon.io.volume import Volume, intensity_range
from napari_dycon.widgets.dialogs.progress import CancelledError, OnProgress, run_with_dialog
from napari_dycon.widgets.dialogs.series_selection import ask_to_resample, choose_series
from napari_dycon.widgets.layers.layer_stack import AXIS_LABELS, METADATA_KEY

LayerData = tuple[Any, dict[str, Any], str]
_LoadedVolume = tuple[Volume, tuple[float, float]]
MAX_QUANTILE_VOXELS = 2**20  # that the displayed range is estimated from
GROUPING_WINDOW_S = 5.0


def open_scans(paths: Sequence[Path], window: QWidget | None) -> list[LayerData]:
    """Read scans as layers.

    Parameters
    ----------
    paths : files, or folders of DICOM series
    window : parent of dialogs. Without one there are no prompts, and errors are raised.
    """
    if window is None:
        return [_to_layer_data(_prepare(read_volume(path)), scan_name(path)) for path in paths]
    layers = []
    for path in paths:
        if _file_group.accepts(path):
            continue
        try:
            layers += _open_path(path, window)
        except UserError as error:
            show_error(escape_rich_text(error))
        except CancelledError:
            pass
        except (MemoryError, OSError) as error:
            show_error(escape_rich_text(_as_user_error(path, error)))
        finally:
            _file_group.keep_open()
    return layers


def _open_path(path: Path, window: QWidget) -> list[LayerData]:
    if not path.is_dir() and is_scan(path):
        name = scan_name(path)
        loaded = run_with_dialog(f"Opening {name}", lambda _: _prepare(read_volume(path)), window)
        return [_to_layer_data(loaded, name)]
    all_series = _find_series(path, window)
    volume_series = [series for series in all_series if len(series.slices) > 1]
    if len(volume_series) > 1:
        selected = choose_series(volume_series, len(all_series) - len(volume_series), window)
    else:
        series, notes = select_single_series(path, all_series)
        _show_notes(notes)
        selected = [series]
    layers = []
    for series in selected:
        try:
            layers += _open_series(series, window)
        except UserError as error:  # the others may be readable
            show_error(escape_rich_text(error))
    return layers


def _find_series(path: Path, window: QWidget) -> list[Series]:
    """Find the series of a folder, or those that a file belongs to."""

    def search(folder: Path, deep: bool) -> list[Series]:
        return run_with_dialog(
            "Searching for DICOM series",
            lambda on_progress: find_series(folder, recursive=deep, progress=on_progress),
            window,
        )

    if path.is_dir():
        return search(path, True)
    try:
        sibling_series = _file_group.sibling_series.get(path.parent)
        sibling_series = search(path.parent, False) if sibling_series is None else sibling_series
    except CancelledError:
        _file_group.add_files(path, path.parent.iterdir())
        raise
    _file_group.sibling_series[path.parent] = sibling_series
    file_series = series_containing(path, sibling_series)
    if file_series:
        _file_group.add_files(
            path, (piece.path for series in file_series for piece in series.slices)
        )
    else:  # one message for all files that are not images
        images = {piece.path for series in sibling_series for piece in series.slices}
        _file_group.add_files(path, set(path.parent.iterdir()) - images)
    return file_series


def _open_series(series: Series, window: QWidget) -> list[LayerData]:
    name = series.description or scan_name(series.path)

    def make_task(resample: bool) -> Callable[[OnProgress], _LoadedVolume]:
        return lambda on_progress: _prepare(
            read_series(series, resample=resample, progress=on_progress)
        )

    try:
        loaded = run_with_dialog(f"Opening {name}", make_task(False), window)
    except IrregularSlicesError as error:
        if not ask_to_resample(error, window):
            return []
        loaded = run_with_dialog(f"Resampling {name}", make_task(True), window)
    return [_to_layer_data(loaded, name)]


def _prepare(volume: Volume) -> _LoadedVolume:
    """Compute what a layer needs besides the volume."""
    return volume, compute_intensity_range(volume.array)


def _to_layer_data(loaded: _LoadedVolume, name: str) -> LayerData:
    """Return data, settings and type of a layer that shows a volume."""
    volume, intensity_range = loaded
    _show_notes(volume.notes)
    return (
        volume.array,
        {
            "name": escape_rich_text(name),
            "scale": volume.spacing_mm,
            "units": ("mm",) * 3,
            "axis_labels": AXIS_LABELS,
            "rgb": False,  # napari would infer RGB from three sagittal slices
            "contrast_limits": intensity_range,
            "metadata": {METADATA_KEY: {"source": volume.source}},
        },
        "image",
    )


def _show_notes(notes: Iterable[str]) -> None:
    for note in notes:
        show_warning(escape_rich_text(note))


def compute_intensity_range(array: Array) -> tuple[float, float]:
    """Display range of a scan ``(D, H, W)``, estimated from a regular subset of voxels."""
    step = max(1, round((array.size / MAX_QUANTILE_VOXELS) ** (1 / 3)))
    sampled = array[::step, ::step, ::step]
    low, high = intensity_range(sampled)
    if low == high:  # a few bright voxels in a dark scan
        low, high = float(array.min()), float(array.max())
    return low, high if high > low else low + 1.0


def _as_user_error(path: Path, error: Exception) -> UserError:
    if isinstance(error, MemoryError):
        return FileFormatError(
            f"{path.name} does not fit into this computer's memory. Close other programs or crop "
            "the scan."
        )
    reason = getattr(error, "strerror", None) or "the disk or the network failed"
    return FileFormatError(f"{path.name} could not be read: {reason}. Is it still there?")


class _FileGroup:
    """Files of one series that the user selected together and napari passes one by one.

    The first file opens its series or shows a prompt; the others are skipped.

    Attributes
    ----------
    sibling_series : series of the folders that were searched
    """

    def __init__(self) -> None:
        self.sibling_series: dict[Path, list[Series]] = {}
        self._pending_files: set[Path] = set()
        self._closes_at = 0.0

    def add_files(self, opened: Path, files: Iterable[Path]) -> None:
        """Add the other files of an opened series; opening the same file again is not skipped."""
        self._pending_files |= set(files)
        self._pending_files.discard(opened)

    def accepts(self, path: Path) -> bool:
        """Whether a file belongs to a series that was opened just before."""
        if time.monotonic() > self._closes_at:
            self._pending_files.clear()
            self.sibling_series.clear()
        if path not in self._pending_files:
            return False
        self._pending_files.discard(path)
        self.keep_open()
        return True

    def keep_open(self) -> None:
        """Extend the time in which further files are skipped."""
        self._closes_at = time.monotonic() + GROUPING_WINDOW_S


_file_group = _FileGroup()
