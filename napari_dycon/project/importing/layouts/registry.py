"""Detection of the layout of a folder among the known ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari_dycon.errors import UserError
from napari_dycon.io import get_scan_file
from napari_dycon.project.importing.discovery import contains_scans
from napari_dycon.project.importing.layouts.brats import read_brats
from napari_dycon.project.importing.layouts.isles import read_isles
from napari_dycon.project.importing.layouts.layout import Layout, LayoutCase
from napari_dycon.project.importing.layouts.left_atrium import read_left_atrium
from napari_dycon.project.importing.layouts.msd_nnunet import read_msd_nnunet
from napari_dycon.project.importing.layouts.pancreas_ct import read_pancreas_ct

MAX_SUBFOLDERS = 20  # folders looked into for a dataset
# The first one that recognizes a folder reads it.
LAYOUT_READERS: tuple[Callable[[Path], Layout | None], ...] = (
    read_msd_nnunet,
    read_brats,
    read_isles,
    read_left_atrium,
    read_pancreas_ct,
)


def detect_layout(folder: Path) -> Layout | None:
    """Return the layout of a folder, or ``None`` when it has none of those known here.

    A dataset may lie in the only folder in the given one, as it does in what an archive unpacks to.
    Beside others it is not taken: they would be passed over in silence.

    Raises
    ------
    UserError
        It is one of them but not as it should be, a case is there twice, it holds several of them,
        or it cannot be read.
    """
    folder = folder.absolute()  # cases are called by their folders, which "." does not name
    try:
        if (layout := _detect(folder)) is not None or contains_scans(folder) or not folder.is_dir():
            return layout
        inner = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
        inner.sort(key=Path.is_symlink, reverse=True)  # a folder is found as itself, not by a link
        subfolders = sorted({path.resolve(): path for path in inner}.values())
        if len(subfolders) == 1:
            return _detect(subfolders[0])
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read ({error.strerror}). Choose another, or change who "
            "may read it."
        ) from None
    if len(subfolders) > MAX_SUBFOLDERS:
        return None  # these are patients
    datasets = [path.name for path in subfolders if _is_dataset(path)]
    if len(datasets) > 1:
        raise UserError(
            f"{folder} holds {len(datasets)} datasets: {', '.join(datasets)}. Choose one of these "
            "folders."
        )
    return None


def _is_dataset(folder: Path) -> bool:
    """Whether a folder among others is a dataset and not a patient, who is a single case."""
    try:
        layout = _detect(folder)
    except OSError:  # a folder that may not be read is none to choose
        return False
    except UserError:
        return True
    return layout is not None and len(layout.cases) > 1


def _detect(folder: Path) -> Layout | None:
    """The layout of this very folder."""
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
                f"Case {case.id} has {len(case.images)} channel(s); expected "
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
                f"{folder} holds case {case.id} twice, as {one} and {other}; expected each once. "
                "Move one of them away."
            )
        known[case.id] = case
