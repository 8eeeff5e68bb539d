"""Folders of scans and labels as others hand them out, made into projects."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.errors import UserError
from napari_dycon.project.importing.case_import import OnSkip, SkippedScan
from napari_dycon.project.importing.discovery import Scan, contains_scans, find_labels, find_scans
from napari_dycon.project.importing.layouts import Layout, LayoutCase, detect_layout
from napari_dycon.project.importing.patient_folders import find_patient_folders
from napari_dycon.project.label_rules import present_values
from napari_dycon.project.manifest import check_target_folder
from napari_dycon.project.models import ClassInfo, classes_from_names
from napari_dycon.project.store import Project


def create_project(
    path: Path | str,
    images: Path | str,
    labels: Path | str | None = None,
    classes: Sequence[str] | None = None,
    progress: ItemProgressCallback | None = None,
    *,
    n_labeled: int | None = None,
    channels: Sequence[str] | None = None,
    resample: bool = False,
    on_note: Callable[[str], None] | None = None,
    on_skip: OnSkip | None = None,
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
    check_target_folder(path)
    if channels is not None and not (channels and all(name.strip() for name in channels)):
        raise UserError(
            f"A channel of {', '.join(map(repr, channels)) or 'none'} has no name; expected names "
            "separated by single commas, such as --channels t1,flair."
        )
    if labels is None and scans is None and (layout := detect_layout(Path(images))) is not None:
        channel_indices = _select_channels(layout, channels)
        cases = _drop_incomplete(layout, channel_indices, on_skip)
        label_paths = {case.id: case.label for case, _ in cases if case.label is not None}
        if on_note and (tests := sum(case.is_test for case, _ in cases)):
            on_note(
                f"{tests} of the scans are those that {layout.name} keeps for tests. They are "
                "taken without labels and learned from; to test on them, move them away first."
            )
        return _create_with_cases(
            path,
            _build_classes(layout, classes),
            [layout.channels[n] for n in channel_indices],
            [images for _, images in cases],
            _limit_labels(label_paths, n_labeled, on_note),
            progress,
            ids=[case.id for case, _ in cases],
            value_map=layout.value_map,
            resample=resample,
            on_note=on_note,
            on_skip=on_skip,
        )
    label_paths = {} if labels is None else find_labels(Path(labels))
    incomplete: list[SkippedScan] = []
    if scans is None:
        on_incomplete = None if on_skip is None else incomplete.append
        scans = _find_scans(Path(images), channels, label_paths, on_incomplete)
    if labels is not None:
        names = {scan.name for scan in (*scans, *(one.scan for one in incomplete))}
        if stray := sorted(set(label_paths) - names):
            raise UserError(
                f"Label {stray[0]} has no scan of the same name in {images}"
                f"{f' (and {len(stray) - 1} more)' if len(stray) > 1 else ''}. Expected each "
                "label to be named like its scan."
            )
    label_paths = _limit_labels(label_paths, n_labeled, on_note)
    if on_skip:
        for one in incomplete:
            on_skip(one)
    infos = classes_from_names(classes or ["structure"])
    if classes is None and (values := present_values(list(label_paths.values()))):
        named = zip(values, classes_from_names([f"class {v}" for v in values]), strict=True)
        infos = [info.model_copy(update={"value": value}) for value, info in named]
    count = len(scans[0].images)
    channel_names = channels or (
        ["image"] if count == 1 else [f"channel {n + 1}" for n in range(count)]
    )
    if len(channel_names) != count:
        raise UserError(
            f"{len(channel_names)} channel(s) are named, {', '.join(channel_names)}, but "
            f"{scans[0].name} has {count}. Expected one folder a patient with a file for each of "
            "them, or files NAME_0000, NAME_0001 and so on and a name for each."
        )
    return _create_with_cases(
        path,
        infos,
        channel_names,
        [list(scan.images) for scan in scans],
        label_paths,
        progress,
        ids=[scan.name for scan in scans],
        resample=resample,
        on_note=on_note,
        on_skip=on_skip,
    )


def scans_from_layout(
    images: Path, channels: Sequence[str], *, on_skip: OnSkip | None = None
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
    layout = detect_layout(images)
    if layout is None:
        return None
    single = len(channels) == len(layout.channels) == 1
    channel_indices = [0] if single else _select_channels(layout, channels)
    return [
        Scan(case.id, tuple(files))
        for case, files in _drop_incomplete(layout, channel_indices, on_skip)
    ]


def _drop_incomplete(
    layout: Layout, channel_indices: Sequence[int], on_skip: OnSkip | None
) -> list[tuple[LayoutCase, list[Path]]]:
    """Cases that have these channels, with their files."""
    complete: list[tuple[LayoutCase, list[Path]]] = []
    skipped: list[SkippedScan] = []
    for case in layout.cases:
        try:
            complete.append((case, layout.select_images(case, channel_indices)))
        except UserError as error:
            skipped.append(SkippedScan(Scan(case.id, ()), error, case.label, layout.value_map))
    if skipped and (on_skip is None or not complete):
        raise skipped[0].error
    if on_skip:
        for one in skipped:
            on_skip(one)
    return complete


def _limit_labels(
    labels: dict[str, Path], max_labels: int | None, on_note: Callable[[str], None] | None
) -> dict[str, Path]:
    """Labels of as many cases as are wanted, the first ones by name; fewer are told."""
    if max_labels is not None and max_labels > len(labels) and on_note:
        on_note(
            f"Labels for {max_labels} cases were asked for; there are {len(labels)}, all are taken."
        )
    return dict(sorted(labels.items())[:max_labels])


def _select_channels(layout: Layout, channels: Sequence[str] | None) -> list[int]:
    """Places of the channels that are wanted, by default of all."""
    known = [name.casefold() for name in layout.channels]
    if channels is None:
        return list(range(len(known)))
    if unknown := [name for name in channels if name.strip().casefold() not in known]:
        raise UserError(
            f"{layout.name} has no channel '{unknown[0]}'; expected some of: "
            f"{', '.join(layout.channels)}."
        )
    return [known.index(name.strip().casefold()) for name in channels]


def _build_classes(layout: Layout, names: Sequence[str] | None) -> list[ClassInfo]:
    if names is not None and len(names) != len(layout.classes):
        raise UserError(
            f"{len(names)} class(es) are named, but {layout.name} has {len(layout.classes)}: "
            f"{', '.join(layout.classes.values())}. Name each of them, or none."
        )
    infos = classes_from_names([name[:60] for name in names or layout.classes.values()])
    return [
        info.model_copy(update={"value": value})
        for info, value in zip(infos, layout.classes, strict=True)
    ]


def _find_scans(
    images: Path, channels: Sequence[str] | None, labels: Collection[str], on_skip: OnSkip | None
) -> list[Scan]:
    """By patient where channels are named and folders hold them, else as they lie there."""
    if channels and images.is_dir() and not contains_scans(images):
        return find_patient_folders(images, channels, on_skip=on_skip)
    return find_scans(images, "images", known_names=labels)


def _create_with_cases(
    path: Path,
    classes: Sequence[ClassInfo],
    channels: Sequence[str],
    scans: Sequence[list[Path]],
    labels: dict[str, Path],
    progress: ItemProgressCallback | None,
    **options: Any,
) -> Project:
    """Make a project and add all its cases, or leave nothing behind."""
    missing_folders = [p for p in (path, *path.parents) if not p.exists()]
    project = Project.create(path, classes=classes, channels=channels)
    try:
        project.add_cases(scans, labels=labels, progress=progress, **options)
    except BaseException:
        # The folder was new or empty a moment ago; all that is in it is ours.
        shutil.rmtree(path, ignore_errors=True)
        if not missing_folders:
            path.mkdir(exist_ok=True)
        for parent in missing_folders[1:]:
            with contextlib.suppress(OSError):  # somebody else may use it by now
                parent.rmdir()
        raise
    return project
