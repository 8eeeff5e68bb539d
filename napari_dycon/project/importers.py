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
from napari_dycon.project.layouts import recognise
from napari_dycon.project.schema import ClassInfo, named_classes, next_color
from napari_dycon.project.store import Progress, Project, check_free


def project_from_folder(
    path: Path | str,
    images: Path | str,
    labels: Path | str | None = None,
    classes: Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    labelled: int | None = None,
) -> Project:
    """Make a project from a folder of scans and, for some of them, labels of the same name.

    A folder in the layout of a known benchmark (see ``layouts.py``) is taken as it is, with its own
    labels, channels and classes. All scans and labels are read and checked first; when one is
    wrong, nothing is left behind.

    Parameters
    ----------
    path : folder of the project, new or empty
    images, labels : folders
    classes : names of the classes 1, 2, ...; by default one for each value in the labels
    labelled : take labels for this many cases only, the first ones by name; the others count as
        unlabelled
    """
    path = Path(path).absolute()
    check_free(path)
    if labels is None and (layout := recognise(Path(images))) is not None:
        return _filled(
            path,
            [
                ClassInfo(value=value, name=name, color=next_color(index))
                for index, (value, name) in enumerate(layout.classes.items())
            ],
            layout.channels,
            [case.images for case in layout.cases],
            {c.id: c.label for c in layout.cases[:labelled] if c.label is not None},
            progress,
            ids=[case.id for case in layout.cases],
        )
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
    if labelled is not None:
        drawn = dict(sorted(drawn.items())[:labelled])
    infos = named_classes(classes or ["structure"])
    if classes is None and (found := values_in(list(drawn.values()))):
        named = zip(found, named_classes([f"class {v}" for v in found]), strict=True)
        infos = [info.model_copy(update={"value": value}) for value, info in named]
    return _filled(path, infos, ("image",), [[scan] for scan in scans], drawn, progress)


def _filled(
    path: Path,
    classes: Sequence[ClassInfo],
    channels: Sequence[str],
    scans: Sequence[list[Path]],
    labels: dict[str, Path],
    progress: Progress | None,
    ids: Sequence[str] | None = None,
) -> Project:
    """Make a project and add all its cases, or leave nothing behind."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    project = Project.create(path, classes=classes, channels=channels)
    try:
        project.add_cases(scans, labels=labels, progress=progress, ids=ids)
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
