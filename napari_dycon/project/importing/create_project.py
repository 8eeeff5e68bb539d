"""Folders of scans and labels as others hand them out, made into projects."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from napari_dycon.errors import UserError
from napari_dycon.project.importing.case_import import Progress, Skip, Skipped
from napari_dycon.project.importing.discovery import Scan, holds_scans, labels_in, scans_in
from napari_dycon.project.importing.layouts import FoundCase, Layout, recognize
from napari_dycon.project.importing.patient_folders import patients_in
from napari_dycon.project.label_rules import values_in
from napari_dycon.project.manifest import check_free
from napari_dycon.project.models import ClassInfo, named_classes
from napari_dycon.project.store import Project


def project_from_folder(
    path: Path | str,
    images: Path | str,
    labels: Path | str | None = None,
    classes: Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    labeled: int | None = None,
    channels: Sequence[str] | None = None,
    resample: bool = False,
    note: Callable[[str], None] | None = None,
    skip: Skip | None = None,
    scans: Sequence[Scan] | None = None,
) -> Project:
    """Make a project from a folder of scans and, for some of them, labels of the same name.

    A folder in a layout of the field (see ``layouts.py``) is taken as it is, with its own labels,
    channels and classes. Otherwise scans are files, or DICOM series by the folder they lie in. All
    scans and labels are read and checked first; when one is wrong and there is no ``skip``, nothing
    is left behind.

    Parameters
    ----------
    path : folder of the project, new or empty
    images, labels : folders
    classes : names of the classes 1, 2, ...; by default one for each value in the labels. In a
        layout of the field, other names for its classes
    labeled : take labels for this many cases only, the first ones by name; the others count as
        unlabeled
    channels : each subfolder of ``images`` is a patient with a file or series for each of these;
        without subfolders, names of the channels ``NAME_0000``, ``NAME_0001``, ... In a layout of
        the field, those of its channels that are wanted
    resample : interpolate uneven or tilted slices to even ones
    note : is told what had to be decided to read a scan
    skip : is told which scans cannot be used and are left out; see ``Project.add_cases``
    scans : those of ``images`` as a person put their channels together, instead of as they are
        found there
    """
    path = Path(path).absolute()
    check_free(path)
    if channels is not None and not (channels and all(name.strip() for name in channels)):
        raise UserError(
            f"A channel of {', '.join(map(repr, channels)) or 'none'} has no name; expected names "
            "separated by single commas, such as --channels t1,flair."
        )
    if labels is None and scans is None and (layout := recognize(Path(images))) is not None:
        taken = _chosen(layout, channels)
        cases = _complete(layout, taken, skip)
        drawn = {case.id: case.label for case, _ in cases if case.label is not None}
        if note and (tests := sum(case.test for case, _ in cases)):
            note(
                f"{tests} of the scans are those that {layout.name} keeps for tests. They are "
                "taken without labels and learned from; to test on them, move them away first."
            )
        return _filled(
            path,
            _classes_of(layout, classes),
            [layout.channels[n] for n in taken],
            [images for _, images in cases],
            _first(drawn, labeled, note),
            progress,
            ids=[case.id for case, _ in cases],
            renamed=layout.renamed,
            resample=resample,
            note=note,
            skip=skip,
        )
    drawn = {} if labels is None else labels_in(Path(labels))
    incomplete: list[Skipped] = []
    if scans is None:
        left_out = None if skip is None else incomplete.append
        scans = _scans(Path(images), channels, drawn, left_out)
    if labels is not None:
        names = {scan.name for scan in (*scans, *(one.scan for one in incomplete))}
        if stray := sorted(set(drawn) - names):
            raise UserError(
                f"Label {stray[0]} has no scan of the same name in {images}"
                f"{f' (and {len(stray) - 1} more)' if len(stray) > 1 else ''}. Expected each "
                "label to be named like its scan."
            )
    drawn = _first(drawn, labeled, note)
    if skip:
        for one in incomplete:
            skip(one)
    infos = named_classes(classes or ["structure"])
    if classes is None and (found := values_in(list(drawn.values()))):
        named = zip(found, named_classes([f"class {v}" for v in found]), strict=True)
        infos = [info.model_copy(update={"value": value}) for value, info in named]
    count = len(scans[0].images)
    named_channels = channels or (
        ["image"] if count == 1 else [f"channel {n + 1}" for n in range(count)]
    )
    if len(named_channels) != count:
        raise UserError(
            f"{len(named_channels)} channel(s) are named, {', '.join(named_channels)}, but "
            f"{scans[0].name} has {count}. Expected one folder a patient with a file for each of "
            "them, or files NAME_0000, NAME_0001 and so on and a name for each."
        )
    return _filled(
        path,
        infos,
        named_channels,
        [list(scan.images) for scan in scans],
        drawn,
        progress,
        ids=[scan.name for scan in scans],
        resample=resample,
        note=note,
        skip=skip,
    )


def scans_of_dataset(
    images: Path, channels: Sequence[str], *, skip: Skip | None = None
) -> list[Scan] | None:
    """Scans of a folder in a layout of the field, with these of its channels.

    ``None`` for other folders. A single channel fits a single one whatever they are called.

    Parameters
    ----------
    skip : is told of cases that lack one of these channels and are left out; without it, and when
        all do, the first is an error

    Raises
    ------
    UserError
        The dataset is not as it should be, or has not these channels.
    """
    layout = recognize(images)
    if layout is None:
        return None
    single = len(channels) == len(layout.channels) == 1
    taken = [0] if single else _chosen(layout, channels)
    return [Scan(case.id, tuple(files)) for case, files in _complete(layout, taken, skip)]


def _complete(
    layout: Layout, taken: Sequence[int], skip: Skip | None
) -> list[tuple[FoundCase, list[Path]]]:
    """Cases that have these channels, with their files."""
    found: list[tuple[FoundCase, list[Path]]] = []
    skipped: list[Skipped] = []
    for case in layout.cases:
        try:
            found.append((case, layout.images_of(case, taken)))
        except UserError as error:
            skipped.append(Skipped(Scan(case.id, ()), error, case.label, layout.renamed))
    if skipped and (skip is None or not found):
        raise skipped[0].error
    if skip:
        for one in skipped:
            skip(one)
    return found


def _first(
    drawn: dict[str, Path], wanted: int | None, note: Callable[[str], None] | None
) -> dict[str, Path]:
    """Labels of as many cases as are wanted, the first ones by name; fewer are told."""
    if wanted is not None and wanted > len(drawn) and note:
        note(f"Labels for {wanted} cases were asked for; there are {len(drawn)}, all are taken.")
    return dict(sorted(drawn.items())[:wanted])


def _chosen(layout: Layout, channels: Sequence[str] | None) -> list[int]:
    """Places of the channels that are wanted, by default of all."""
    there = [name.casefold() for name in layout.channels]
    if channels is None:
        return list(range(len(there)))
    if unknown := [name for name in channels if name.strip().casefold() not in there]:
        raise UserError(
            f"{layout.name} has no channel '{unknown[0]}'; expected some of: "
            f"{', '.join(layout.channels)}."
        )
    return [there.index(name.strip().casefold()) for name in channels]


def _classes_of(layout: Layout, names: Sequence[str] | None) -> list[ClassInfo]:
    if names is not None and len(names) != len(layout.classes):
        raise UserError(
            f"{len(names)} class(es) are named, but {layout.name} has {len(layout.classes)}: "
            f"{', '.join(layout.classes.values())}. Name each of them, or none."
        )
    infos = named_classes([name[:60] for name in names or layout.classes.values()])
    return [
        info.model_copy(update={"value": value})
        for info, value in zip(infos, layout.classes, strict=True)
    ]


def _scans(
    images: Path, channels: Sequence[str] | None, labels: Collection[str], skip: Skip | None
) -> list[Scan]:
    """By patient where channels are named and folders hold them, else as they lie there."""
    if channels and images.is_dir() and not holds_scans(images):
        return patients_in(images, channels, skip=skip)
    return scans_in(images, "images", whole=labels)


def _filled(
    path: Path,
    classes: Sequence[ClassInfo],
    channels: Sequence[str],
    scans: Sequence[list[Path]],
    labels: dict[str, Path],
    progress: Progress | None,
    **how: Any,
) -> Project:
    """Make a project and add all its cases, or leave nothing behind."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    project = Project.create(path, classes=classes, channels=channels)
    try:
        project.add_cases(scans, labels=labels, progress=progress, **how)
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
