"""Discovery of scans with several channels: by patient folder, or by names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_dycon import io
from napari_dycon.errors import UserError
from napari_dycon.io.dicom import discovery
from napari_dycon.io.files import find_files
from napari_dycon.project.importing.case_import import OnSkip, SkippedScan, is_scan_specific
from napari_dycon.project.importing.channel_matching import (
    assign_channels,
    candidates_from,
    tokenize,
)
from napari_dycon.project.importing.discovery import (
    CHANNEL_SUFFIX,
    Scan,
    contains_scans,
    find_scans,
    list_channel_paths,
    list_files,
    scans_from_paths,
)

NamedFiles = Sequence[tuple[str, Path]]


def find_patient_folders(
    folder: Path, channels: Sequence[str], *, on_skip: OnSkip | None = None
) -> list[Scan]:
    """Find one scan per subfolder, with the file or DICOM series of each channel by name.

    The files of a patient may also be ``NAME_0000``, ``NAME_0001``, ... in the order of the
    channels, or a single 4D file.

    Parameters
    ----------
    channels : words, such as ``t1`` and ``flair``, found in file names or series' descriptions
    on_skip : called with each patient that lacks a channel and is left out; without it, or if all
        are left out, the first error is raised
    """
    scans: list[Scan] = []
    skipped: list[SkippedScan] = []
    for patient in list_files(folder, "images"):
        if not patient.is_dir():
            continue
        try:
            candidates = [(io.scan_name(p), p) for p in find_files(patient) if io.is_scan(p)]
            if not candidates:
                series = discovery.find_series(patient)
                candidates = [(s.description, s.path) for s in series if len(s.slices) > 1]
            if candidates:
                scans.append(
                    Scan(patient.name, _select_channel_images(candidates, channels, patient.name))
                )
        except UserError as error:
            if on_skip is None or not is_scan_specific(error):
                raise
            skipped.append(SkippedScan(Scan(patient.name, ()), error))
    if not scans and skipped:
        raise skipped[0].error
    if not scans:
        raise UserError(
            f"{folder} has no subfolders with scans; expected one folder per patient, with a file "
            f"or series for each of: {', '.join(channels)}."
        )
    if on_skip:
        for one in skipped:
            on_skip(one)
    return scans


def resolve_scans(
    paths: Sequence[Path],
    channels: Sequence[str],
    *,
    examples: Sequence[Sequence[Path]] = (),
    on_skip: OnSkip | None = None,
) -> list[Scan]:
    """Find the scans in selected files and folders for a project with these channels.

    With several channels, a folder contains one folder per patient (see ``find_patient_folders``),
    files ``NAME_0000``, ``NAME_0001``, ..., 4D files, or files named after the channels.

    Parameters
    ----------
    examples : files of known cases, one per channel; see ``channel_matching.assign_channels``
    on_skip : called with each case that lacks a channel and is left out

    Raises
    ------
    UserError
        No case has all channels, or one lacks a channel and there is no ``on_skip``.
    """
    if len(channels) == 1:
        return scans_from_paths(paths)
    scans: list[Scan] = []
    single_files: list[Path] = []
    for path in (path.absolute() for path in paths):
        if not path.is_dir():
            single_files.append(path)
            continue
        if not contains_scans(path):
            scans += find_patient_folders(path, channels, on_skip=on_skip)
            continue
        folder_scans = find_scans(path, "scans")
        if any(len(scan.images) == len(channels) for scan in folder_scans):
            scans += folder_scans  # adding them reports those with other channels
        else:
            files = [io.get_scan_file(image) for scan in folder_scans for image in scan.images]
            scans += _match_by_name(files, channels, examples, on_skip, f"The folder {path.name}")
    if single_files:
        scans += _match_by_name(single_files, channels, examples, on_skip, "This choice of files")
    return scans


def _match_by_name(
    files: Sequence[Path],
    channels: Sequence[str],
    examples: Sequence[Sequence[Path]],
    on_skip: OnSkip | None,
    source: str,
) -> list[Scan]:
    """Match files to cases and channels by name."""
    candidates = candidates_from(files) if files else []
    drafts = assign_channels(candidates, channels, examples=examples, strict=True)
    if not any(draft.is_complete for draft in drafts):
        named_paths = [(candidate.display_name, candidate.path) for candidate in candidates]
        raise UserError(
            f"{source} has no case with all channels of this project ({', '.join(channels)}). "
            f"Found: {_format_names(named_paths) or 'no single images'}. "
            "Expected a folder for each patient, files NAME_0000, NAME_0001 and so on, or the "
            "names of the channels in the file names. Add > Scan files lets you assign them."
        )
    scans = []
    for draft in drafts:
        images = tuple(path for path in draft.images if path is not None)
        if draft.is_complete:
            scans.append(Scan(draft.name, images))
            continue
        missing = [c for c, path in zip(channels, draft.images, strict=True) if path is None]
        error = UserError(
            f"{draft.name} does not have exactly one image for {' and '.join(missing)}."
        )
        if on_skip is None:
            raise error
        on_skip(SkippedScan(Scan(draft.name, images), error))
    return scans


def _select_channel_images(
    candidates: NamedFiles, channels: Sequence[str], patient: str
) -> tuple[Path, ...]:
    """Select the image of each channel among those of a patient."""
    count = len(channels)
    if (
        len(candidates) == 1
        and len(channel_paths := list_channel_paths(candidates[0][1])) == count > 1
    ):
        return channel_paths
    numbers = {m[2]: path for name, path in candidates if (m := CHANNEL_SUFFIX.match(name))}
    if len(candidates) == count and set(numbers) == {f"{n:04d}" for n in range(count)}:
        return tuple(numbers[number] for number in sorted(numbers))
    images = tuple(_find_channel_image(candidates, channel, patient) for channel in channels)
    if len(set(images)) < len(images):
        raise UserError(
            f"Folder {patient} has one scan for several of the channels {', '.join(channels)}; "
            f"expected one for each. Found: {_format_names(candidates)}."
        )
    return images


def _find_channel_image(candidates: NamedFiles, channel: str, patient: str) -> Path:
    """Find the only file or series whose name contains a channel's words.

    Whole words are compared, so that a patient without t1 does not get t1ce instead.
    """
    wanted = tokenize(channel)
    matches = [
        (words, path) for name, path in candidates if wanted and wanted <= (words := tokenize(name))
    ]
    # Of p1_t1 and p1_t1_post the first is t1, since the other contains all its words.
    shortest = [path for words, path in matches if all(words <= other for other, _ in matches)]
    if len(shortest) != 1:
        raise UserError(
            f"Folder {patient} has {len(matches) or 'no'} scans for the channel '{channel}'; "
            f"expected one with this word in its name. Found: {_format_names(candidates)}."
        )
    return shortest[0]


def _format_names(candidates: NamedFiles) -> str:
    more = f" and {len(candidates) - 12} more" if len(candidates) > 12 else ""
    return ", ".join(name or "no description" for name, _ in candidates[:12]) + more
