"""Detection of the layout of a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari_dycon.core.wording import format_count
from napari_dycon.errors import UserError
from napari_dycon.io import get_scan_file
from napari_dycon.project.importing.discovery import contains_scans
from napari_dycon.project.importing.layouts.brats import read_brats
from napari_dycon.project.importing.layouts.isles import read_isles
from napari_dycon.project.importing.layouts.layout import Layout, LayoutCase
from napari_dycon.project.importing.layouts.left_atrium import read_left_atrium
from napari_dycon.project.importing.layouts.msd_nnunet import read_msd_nnunet
from napari_dycon.project.importing.layouts.pancreas_ct import read_pancreas_ct

MAX_SUBFOLDERS = 20  # searched for a dataset
# The first one that recognizes a folder reads it.
LAYOUT_READERS: tuple[Callable[[Path], Layout | None], ...] = (
    read_msd_nnunet,
    read_brats,
    read_isles,
    read_left_atrium,
    read_pancreas_ct,
)


def detect_layout(folder: Path) -> Layout | None:
    """Detect the layout of a folder; ``None`` if it is unknown.

    A dataset may be in the only subfolder of the given folder, as in an unpacked archive. It is not
    used if there are other folders, which would be ignored silently.

    Raises
    ------
    UserError
        The layout is known but invalid, a case occurs twice, the folder contains several datasets,
        or it cannot be read.
    """
    folder = folder.absolute()  # cases are named by their folders, and "." has no name
    try:
        if (layout := _detect(folder)) is not None or contains_scans(folder) or not folder.is_dir():
            return layout
        inner = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
        inner.sort(key=Path.is_symlink, reverse=True)  # a folder is preferred to a link to it
        subfolders = sorted({path.resolve(): path for path in inner}.values())
        if len(subfolders) == 1:
            return _detect(subfolders[0])
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read ({error.strerror}). Choose another, or change its "
            "permissions."
        ) from None
    if len(subfolders) > MAX_SUBFOLDERS:
        return None  # these are patients
    datasets = [path.name for path in subfolders if _is_dataset(path)]
    if len(datasets) > 1:
        raise UserError(
            f"{folder} contains {len(datasets)} datasets: {', '.join(datasets)}. Choose one of "
            "these folders."
        )
    return None


def _is_dataset(folder: Path) -> bool:
    """Check whether one of several folders is a dataset rather than a single patient."""
    try:
        layout = _detect(folder)
    except OSError:  # an unreadable folder cannot be chosen
        return False
    except UserError:
        return True
    return layout is not None and len(layout.cases) > 1


def _detect(folder: Path) -> Layout | None:
    """Detect the layout of this folder, without its subfolders."""
    for reader in LAYOUT_READERS:
        if (layout := reader(folder)) is not None:
            _check_cases(layout, folder)
            return layout
    return None


def _check_cases(layout: Layout, folder: Path) -> None:
    known: dict[str, LayoutCase] = {}
    for case in layout.cases:
        if len(case.images) != len(layout.channels):
            raise UserError(
                f"Case {case.id} has {format_count(len(case.images), 'channel')}; expected "
                f"{len(layout.channels)}, as the dataset describes: {', '.join(layout.channels)}. "
                "Correct dataset.json, or complete the case."
            )
        if case.id in known:
            one, other = (
                next(
                    get_scan_file(path).relative_to(folder)
                    for path in found.images
                    if path is not None
                )
                for found in (known[case.id], case)
            )
            raise UserError(
                f"{folder} contains case {case.id} twice, as {one} and {other}; expected one. "
                "Move one of them to another folder."
            )
        known[case.id] = case
