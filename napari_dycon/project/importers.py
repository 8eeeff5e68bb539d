"""Folders of scans and labels as others hand them out, made into projects."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path

from napari_dycon.errors import UserError
from napari_dycon.project import formats
from napari_dycon.project.labels import values_in
from napari_dycon.project.schema import named_classes
from napari_dycon.project.store import Progress, Project, check_free


def project_from_folder(
    path: Path | str,
    images: Path | str,
    labels: Path | str | None = None,
    classes: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Project:
    """Make a project from a folder of scans and, for some of them, labels of the same name.

    All scans and labels are read and checked first; when one is wrong, nothing is left behind.
    """
    path = Path(path).absolute()
    check_free(path)
    missing = [p for p in (path, *path.parents) if not p.exists()]
    scans = scans_in(Path(images), "images")
    drawn: dict[str, Path] = {}
    if labels is not None:
        drawn = {formats.scan_name(p): p for p in scans_in(Path(labels), "labels")}
        names = {formats.scan_name(p) for p in scans}
        if stray := sorted(set(drawn) - names):
            raise UserError(
                f"Label {stray[0]} has no scan of the same name in {images}"
                f"{f' (and {len(stray) - 1} more)' if len(stray) > 1 else ''}. Expected each "
                "label to be named like its scan."
            )
    infos = named_classes(classes or ["structure"])
    if classes is None and (found := values_in(list(drawn.values()))):
        named = zip(found, named_classes([f"class {v}" for v in found]), strict=True)
        infos = [info.model_copy(update={"value": value}) for value, info in named]
    project = Project.create(path, classes=infos)
    try:
        project.add_cases(scans, labels=drawn, progress=progress)
    except BaseException:
        # The folder was new or empty a moment ago; all that is in it is ours.
        shutil.rmtree(path, ignore_errors=True)
        if not missing:
            path.mkdir(exist_ok=True)
        for parent in missing[1:]:
            with contextlib.suppress(OSError):  # somebody else may use it by now
                parent.rmdir()
        raise
    return project


def scans_in(folder: Path, what: str) -> list[Path]:
    """Scans of a folder, sorted by name; an error when there are none."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} (for the {what}). Check its name.")
    try:
        found = sorted(p for p in folder.iterdir() if p.is_file() and formats.is_scan(p))
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be read: {error.strerror}.") from None
    if not found:
        raise UserError(
            f"The folder {folder} (for the {what}) holds no scans; expected NIfTI files (.nii or "
            ".nii.gz)."
        )
    for one, other in itertools.pairwise(sorted(found, key=formats.scan_name)):
        if formats.scan_name(one) == formats.scan_name(other):
            raise UserError(
                f"{folder} holds both {one.name} and {other.name}; expected one file of a name. "
                "Move one of them away."
            )
    return found
