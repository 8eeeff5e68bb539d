"""Scans of several channels, found where people keep them: a folder a patient, or by names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_dycon import io
from napari_dycon.errors import UserError
from napari_dycon.io.dicom import discovery
from napari_dycon.io.files import files_below
from napari_dycon.project.importing.case_import import Skip, Skipped, is_of_one_scan
from napari_dycon.project.importing.channel_matching import arrange, pieces_of, words_of
from napari_dycon.project.importing.discovery import (
    NUMBERED,
    Scan,
    channels_of,
    holds_scans,
    listed,
    scans_in,
    scans_of,
)

Named = Sequence[tuple[str, Path]]


def patients_in(folder: Path, channels: Sequence[str], *, skip: Skip | None = None) -> list[Scan]:
    """One scan a subfolder, with the file or DICOM series of each channel by name.

    A patient's only files may also be ``NAME_0000``, ``NAME_0001``, ... in the order of the
    channels, or one 4D file.

    Parameters
    ----------
    channels : words, such as ``t1`` and ``flair``, found in file names or series' descriptions
    skip : is told of patients that lack a channel and are left out; without it, and when all do,
        the first is an error
    """
    found: list[Scan] = []
    skipped: list[Skipped] = []
    for patient in listed(folder, "images"):
        if not patient.is_dir():
            continue
        try:
            named = [(io.scan_name(p), p) for p in files_below(patient) if io.is_scan(p)]
            if not named:
                series = discovery.find_series(patient)
                named = [(s.description, s.path) for s in series if len(s.slices) > 1]
            if named:
                found.append(Scan(patient.name, _channels_among(named, channels, patient.name)))
        except UserError as error:
            if skip is None or not is_of_one_scan(error):
                raise
            skipped.append(Skipped(Scan(patient.name, ()), error))
    if not found and skipped:
        raise skipped[0].error
    if not found:
        raise UserError(
            f"{folder} has no subfolders with scans; expected one folder a patient, with a file or "
            f"series for each of: {', '.join(channels)}."
        )
    if skip:
        for one in skipped:
            skip(one)
    return found


def scans_for(
    paths: Sequence[Path],
    channels: Sequence[str],
    *,
    examples: Sequence[Sequence[Path]] = (),
    skip: Skip | None = None,
) -> list[Scan]:
    """Scans of files and folders that a person chose for a project with these channels.

    Of several channels a folder holds one folder a patient (see ``patients_in``), files
    ``NAME_0000``, ``NAME_0001``, ..., 4D files, or files with the channels' words in their names.

    Parameters
    ----------
    examples : files of cases that are known, one a channel; see ``matching.arrange``
    skip : is told of cases that lack a channel and are left out

    Raises
    ------
    UserError
        No case has all channels, or one has not and there is no ``skip``.
    """
    if len(channels) == 1:
        return scans_of(paths)
    found: list[Scan] = []
    loose: list[Path] = []
    for path in (path.absolute() for path in paths):
        if not path.is_dir():
            loose.append(path)
            continue
        if not holds_scans(path):
            found += patients_in(path, channels, skip=skip)
            continue
        here = scans_in(path, "scans")
        if any(len(scan.images) == len(channels) for scan in here):
            found += here  # adding tells of those that have others
        else:
            files = [io.file_of(image) for scan in here for image in scan.images]
            found += _by_name(files, channels, examples, skip, f"The folder {path.name}")
    if loose:
        found += _by_name(loose, channels, examples, skip, "This choice of files")
    return found


def _by_name(
    files: Sequence[Path],
    channels: Sequence[str],
    examples: Sequence[Sequence[Path]],
    skip: Skip | None,
    what: str,
) -> list[Scan]:
    """Cases of files whose names tell the channel."""
    pieces = pieces_of(files) if files else []
    rows = arrange(pieces, channels, examples=examples, sure=True)
    if not any(row.complete for row in rows):
        raise UserError(
            f"{what} has no case with all channels of this project ({', '.join(channels)}). Found: "
            f"{_names([(piece.text, piece.path) for piece in pieces]) or 'no single images'}. "
            "Expected a folder for each patient, or files NAME_0000, NAME_0001 and so on, or the "
            "channels' names in those of the files. Add > Scan files lets you say which is which."
        )
    found = []
    for row in rows:
        images = tuple(path for path in row.images if path is not None)
        if row.complete:
            found.append(Scan(row.name, images))
            continue
        lacking = [c for c, path in zip(channels, row.images, strict=True) if path is None]
        error = UserError(f"{row.name} has not one image for {' and '.join(lacking)}.")
        if skip is None:
            raise error
        skip(Skipped(Scan(row.name, images), error))
    return found


def _channels_among(named: Named, channels: Sequence[str], patient: str) -> tuple[Path, ...]:
    """The image of each channel among those of a patient."""
    count = len(channels)
    if len(named) == 1 and len(whole := channels_of(named[0][1])) == count > 1:
        return whole
    numbers = {m[2]: path for name, path in named if (m := NUMBERED.match(name))}
    if len(named) == count and set(numbers) == {f"{n:04d}" for n in range(count)}:
        return tuple(numbers[number] for number in sorted(numbers))
    images = tuple(_of_channel(named, channel, patient) for channel in channels)
    if len(set(images)) < len(images):
        raise UserError(
            f"Folder {patient} has one scan for several of the channels {', '.join(channels)}; "
            f"expected one for each. Found: {_names(named)}."
        )
    return images


def _of_channel(named: Named, channel: str, patient: str) -> Path:
    """The one file or series in whose name a channel's words occur.

    Parts of words do not count: a patient without t1 must not have t1ce in its place.
    """
    wanted = words_of(channel)
    found = [
        (words, path) for name, path in named if wanted and wanted <= (words := words_of(name))
    ]
    # Of p1_t1 and p1_t1_post the first is t1: all it says, the other says too.
    plain = [path for words, path in found if all(words <= other for other, _ in found)]
    if len(plain) != 1:
        raise UserError(
            f"Folder {patient} has {len(found) or 'no'} scans for the channel '{channel}'; "
            f"expected one with this word in its name. Found: {_names(named)}."
        )
    return plain[0]


def _names(named: Named) -> str:
    more = f" and {len(named) - 12} more" if len(named) > 12 else ""
    return ", ".join(name or "no description" for name, _ in named[:12]) + more
