"""Planning of a new project from folders of scans and labels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_dycon.core.wording import format_count
from napari_dycon.errors import UserError
from napari_dycon.project.case_ids import normalize_name
from napari_dycon.project.importing.case_import import OnSkip, SkippedScan
from napari_dycon.project.importing.discovery import Scan, contains_scans, find_labels, find_scans
from napari_dycon.project.importing.layouts.layout import Layout, LayoutCase
from napari_dycon.project.importing.layouts.registry import detect_layout
from napari_dycon.project.importing.patient_folders import find_patient_folders
from napari_dycon.project.label_rules import present_values
from napari_dycon.project.models import ClassInfo, classes_from_names

OnNote = Callable[[str], None]


@dataclass(frozen=True)
class ImportPlan:
    """Content of a new project, planned from folders of scans and labels.

    Attributes
    ----------
    classes, channels : classes and channels of the project
    scans : one per case, with one image per channel
    labels : label files by the name of their scan
    value_map : values of label files that are replaced by others
    layout : name of the known layout of the folder; empty if it has none
    """

    classes: Sequence[ClassInfo]
    channels: Sequence[str]
    scans: Sequence[Scan]
    labels: Mapping[str, Path]
    value_map: Mapping[int, int] = field(default_factory=dict)
    layout: str = ""


def plan_import(
    images: Path | str,
    labels: Path | str | None = None,
    classes: Sequence[str] | None = None,
    *,
    n_labeled: int | None = None,
    channels: Sequence[str] | None = None,
    scans: Sequence[Scan] | None = None,
    on_note: OnNote | None = None,
    on_skip: OnSkip | None = None,
) -> ImportPlan:
    """Plan cases, channels, classes and labels of a new project; writes nothing.

    A folder in a known layout (see ``layouts``) is used with its own labels, channels and classes.
    Otherwise scans are files, or DICOM series named after their folders.

    Parameters
    ----------
    images, labels : folders
    classes : names of the classes 1, 2, ...; by default one for each value in the labels. In a
        known layout, other names for its classes
    n_labeled : use labels for only this many cases, the first ones by name; the others are
        unlabeled
    channels : each subfolder of ``images`` is a patient with a file or series for each of these;
        without subfolders, names of the channels ``NAME_0000``, ``NAME_0001``, ... In a known
        layout, the selected ones of its channels
    scans : scans of ``images`` with channels already assigned, instead of finding them
    on_note, on_skip : see ``create_project.create_project``
    """
    if channels is not None and not (channels and all(name.strip() for name in channels)):
        raise UserError(
            f"A channel of {', '.join(map(repr, channels)) or 'none'} has no name; expected names "
            "separated by single commas, such as --channels t1,flair."
        )
    _check_unique_names(classes or ())
    if labels is None and scans is None and (layout := detect_layout(Path(images))) is not None:
        return _plan_layout(layout, classes, channels, n_labeled, on_note, on_skip)
    return _plan_folders(
        Path(images),
        None if labels is None else Path(labels),
        classes,
        channels,
        n_labeled,
        scans,
        on_note,
        on_skip,
    )


def _check_unique_names(classes: Sequence[str]) -> None:
    known: set[str] = set()
    for name in classes:
        if normalize_name(name.strip()) in known:
            raise UserError(
                f'Two structures are called "{name.strip()}". Give each structure a name of its '
                "own."
            )
        known.add(normalize_name(name.strip()))


def _plan_layout(
    layout: Layout,
    classes: Sequence[str] | None,
    channels: Sequence[str] | None,
    n_labeled: int | None,
    on_note: OnNote | None,
    on_skip: OnSkip | None,
) -> ImportPlan:
    """Plan the import of a folder in a known layout."""
    channel_indices = _select_channels(layout, channels)
    cases = _drop_incomplete(layout, channel_indices, on_skip)
    labels = {case.id: case.label for case, _ in cases if case.label is not None}
    if on_note and (n_tests := sum(case.is_test for case, _ in cases)):
        on_note(
            f"{n_tests} of the scans are test images of {layout.name}. They are imported as "
            "unlabeled cases and used for training; to test on them, move them away first."
        )
    return ImportPlan(
        _build_classes(layout, classes),
        [layout.channels[n] for n in channel_indices],
        [Scan(case.id, tuple(images)) for case, images in cases],
        _limit_labels(labels, n_labeled, on_note),
        layout.value_map,
        layout.format_name or layout.name,
    )


def _plan_folders(
    images: Path,
    labels_folder: Path | None,
    classes: Sequence[str] | None,
    channels: Sequence[str] | None,
    n_labeled: int | None,
    scans: Sequence[Scan] | None,
    on_note: OnNote | None,
    on_skip: OnSkip | None,
) -> ImportPlan:
    """Plan the import of a folder of scans and of one of labels with the same names."""
    labels = {} if labels_folder is None else find_labels(labels_folder)
    incomplete: list[SkippedScan] = []
    if scans is None:
        on_incomplete = None if on_skip is None else incomplete.append
        scans = _find_scans(images, channels, labels, on_incomplete)
    names = {scan.name for scan in (*scans, *(one.scan for one in incomplete))}
    if stray := sorted(set(labels) - names):
        raise UserError(
            f"Label {stray[0]} has no scan of the same name in {images}"
            f"{f' (and {len(stray) - 1} more)' if len(stray) > 1 else ''}. Expected each "
            "label to have the name of its scan."
        )
    labels = _limit_labels(labels, n_labeled, on_note)
    if on_skip:
        for one in incomplete:
            on_skip(one)
    return ImportPlan(
        _classes_from_labels(classes, labels), _name_channels(channels, scans[0]), scans, labels
    )


def _classes_from_labels(
    names: Sequence[str] | None, labels: Mapping[str, Path]
) -> list[ClassInfo]:
    """Build classes of the given names, or one for each value in the labels."""
    if names is None and (values := present_values(list(labels.values()))):
        infos = classes_from_names([f"class {value}" for value in values])
        return [
            info.model_copy(update={"value": value})
            for value, info in zip(values, infos, strict=True)
        ]
    return classes_from_names(names or ["structure"])


def _name_channels(names: Sequence[str] | None, scan: Scan) -> Sequence[str]:
    """Return the names of the channels of a scan, numbered by default."""
    count = len(scan.images)
    names = names or (["image"] if count == 1 else [f"channel {n + 1}" for n in range(count)])
    if len(names) != count:
        raise UserError(
            f"Found {format_count(len(names), 'channel name')}, {', '.join(names)}, but "
            f"{scan.name} has {count}. Expected one folder per patient with a file for each of "
            "them, or files NAME_0000, NAME_0001 and so on and a name for each."
        )
    return names


def scans_from_layout(
    images: Path, channels: Sequence[str], *, on_skip: OnSkip | None = None
) -> list[Scan] | None:
    """Find the scans of a folder in a known layout, with the selected channels.

    ``None`` for other folders. A single channel matches a single one whatever their names.

    Parameters
    ----------
    on_skip : called with each case that lacks one of these channels and is left out; without it,
        or if all cases are left out, the first error is raised

    Raises
    ------
    UserError
        The dataset is invalid, or does not have these channels.
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
    """Return the cases that have these channels, with their files."""
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
    labels: dict[str, Path], max_labels: int | None, on_note: OnNote | None
) -> dict[str, Path]:
    """Keep the labels of at most ``max_labels`` cases, the first ones by name."""
    if max_labels is not None and max_labels > len(labels) and on_note:
        on_note(f"Labels for {max_labels} cases were requested; all {len(labels)} are used.")
    return dict(sorted(labels.items())[:max_labels])


def _select_channels(layout: Layout, channels: Sequence[str] | None) -> list[int]:
    """Return the indices of the selected channels, by default of all."""
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
            f"Found {format_count(len(names), 'class name')}, but {layout.name} has "
            f"{len(layout.classes)}: "
            f"{', '.join(layout.classes.values())}. Name all of them, or none."
        )
    infos = classes_from_names([name[:60] for name in names or layout.classes.values()])
    return [
        info.model_copy(update={"value": value})
        for info, value in zip(infos, layout.classes, strict=True)
    ]


def _find_scans(
    images: Path, channels: Sequence[str] | None, labels: Collection[str], on_skip: OnSkip | None
) -> list[Scan]:
    """Find scans by patient folder if channels are named, otherwise file by file."""
    if channels and images.is_dir() and not contains_scans(images):
        return find_patient_folders(images, channels, on_skip=on_skip)
    return find_scans(images, "images", known_names=labels)
