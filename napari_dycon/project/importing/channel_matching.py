"""Which image is which channel of which case, told by names: a guess for a person to correct.

Words decide, not parts of words: a patient without t1 must not have t1ce in its place.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_dycon import io
from napari_dycon.errors import FileFormatError
from napari_dycon.io.dicom import discovery
from napari_dycon.io.files import files_below
from napari_dycon.io.reading import KINDS
from napari_dycon.project.importing.discovery import NUMBERED, channels_of

Words = frozenset[str]


@dataclass(frozen=True)
class Piece:
    """One image that may be a channel: a file, a channel of a 4D file, or a DICOM series.

    Attributes
    ----------
    path : as ``formats.read_volume`` takes it
    text : tells it from the others, for a person
    name : in which the words of a channel may occur
    place : folder of what belongs together
    stem : what is left of a name when the channel is taken away, where ``name`` does not tell
    channel : number in a 4D file, from 0
    of : how many channels this file has
    """

    path: Path
    text: str
    name: str
    place: Path
    stem: str | None = None
    channel: int = 0
    of: int = 1


@dataclass(frozen=True)
class Row:
    """A case as far as it could be told: an image a channel, ``None`` where there is none."""

    name: str
    images: tuple[Path | None, ...]

    @property
    def complete(self) -> bool:
        """Whether every channel has its image."""
        return None not in self.images


def words_of(text: str) -> Words:
    """Words of a name, whatever stands between them."""
    return frozenset(re.split(r"[\W_]+", text.casefold())) - {""}


def pieces_of(
    paths: Sequence[Path], progress: Callable[[int, int], None] | None = None
) -> list[Piece]:
    """Look at files and folders that a person chose; reads headers, so it may take a while."""
    found: dict[Path, Piece] = {}
    series: dict[Path, list[discovery.Series]] = {}
    files = []
    for path in (path.absolute() for path in paths):
        if not path.is_dir():
            files.append(path)
        elif scans := [file for file in files_below(path) if io.is_scan(file)]:
            files += scans
        else:
            for one in discovery.find_series(path, progress=progress):
                series.setdefault(one.path.parent, []).append(one)
                files.append(one.path)
    for number, file in enumerate(files):
        if progress:
            progress(number, len(files))
        if not file.exists():
            raise FileFormatError(f"There is no file {file}. Check its name and folder.")
        if io.is_scan(file):
            found.update({piece.path: piece for piece in _of_file(file)})
            continue
        if file.parent not in series:
            series[file.parent] = discovery.find_series(file.parent, deep=False)
        its = discovery.with_images_of(file, series[file.parent])
        for one in its:
            if len(one.slices) > 1 and one.path not in found:
                found[one.path] = _of_series(one, series[file.parent])
        if not its:
            raise FileFormatError(f"{file.name} is no scan; expected {KINDS}.")
    if not found:
        raise FileFormatError(
            "No scan with several slices was found there; X-rays and screenshots are not 3D. "
            "Choose other files."
        )
    return _told_apart(list(found.values()))


def _of_file(file: Path) -> list[Piece]:
    name = io.scan_name(file)
    channels = channels_of(file)
    if len(channels) == 1:
        return [Piece(file, file.name, name, file.parent)]
    return [
        Piece(path, f"{file.name}, channel {n + 1}", name, file.parent, name, n, len(channels))
        for n, path in enumerate(channels)
    ]


def _of_series(series: discovery.Series, beside: Sequence[discovery.Series]) -> Piece:
    """A patient's folder holds the series, or a folder for each of them."""
    folder = series.path.parent
    alone = sum(len(one.slices) > 1 for one in beside) == 1
    text = f"{folder.name}: {series.description or 'no description'}"
    return Piece(series.path, text, series.description, folder.parent if alone else folder, stem="")


def _told_apart(pieces: list[Piece]) -> list[Piece]:
    """Name the folder too where several are called the same."""
    count = Counter(piece.text for piece in pieces)
    return [
        replace(piece, text=f"{piece.path.parent.name}/{piece.text}")
        if count[piece.text] > 1
        else piece
        for piece in pieces
    ]


def arrange(
    pieces: Sequence[Piece],
    channels: Sequence[str],
    *,
    examples: Sequence[Sequence[Path]] = (),
    sure: bool = False,
) -> list[Row]:
    """Put images together to cases.

    A channel is told by its place in a 4D file, by nnU-Net's suffix ``_0000``, by its words in the
    file's name, its folder's name or a series' description, or by those that files of this channel
    have in common in other cases.

    Parameters
    ----------
    examples : files of cases that are known, one a channel
    sure : do nothing that only seems right: channels by elimination, and cases made of names alone
        or passed over for theirs

    Returns
    -------
    Rows by name; with several images for a channel, or none, it is ``None``.
    """
    marks = [[words_of(channel)] for channel in channels]
    for channel, mark in enumerate(_in_common(examples, len(channels))):
        if mark:
            marks[channel].append(mark)
    told: dict[tuple[str, Path | None], dict[int, list[Piece]]] = {}
    untold = []
    stems: dict[str, list[tuple[int, Piece]]] = defaultdict(list)
    for piece in pieces:
        number, stem = _channel_of(piece, marks)
        if number is None:
            untold.append(piece)
        else:
            stems[stem].append((number, piece))
    for stem, members in stems.items():
        numbers = [channel for channel, _ in members]
        apart = not stem or len(set(numbers)) < len(numbers)  # files of one name in many folders
        for channel, piece in members:
            key = (stem, piece.place if apart else None)
            told.setdefault(key, {}).setdefault(channel, []).append(piece)
    rows = {
        key: Row(
            key[0] if key[1] is None else key[1].name,
            tuple(_plainest(found.get(n, ())) for n in range(len(channels))),
        )
        for key, found in told.items()
    }
    if not sure:
        for key, row in list(rows.items()):
            rows[key] = _eliminated(row, key, told[key], untold)
    used = {path for row in rows.values() for path in row.images}
    result = list(rows.values())
    if not sure:
        left = [piece for piece in untold if piece.path not in used]
        known = {row.name for row in result}
        result += [row for row in _without_channel(left, len(channels)) if row.name not in known]
        # Of p1_t1, p1_flair and p1_t1_post the last one seems to be no case of its own.
        whole = [words_of(row.name) for row in result if row.complete]
        result = [
            row
            for row in result
            if row.complete or not any(words <= words_of(row.name) for words in whole)
        ]
    return sorted(result, key=lambda row: row.name)


def _in_common(examples: Sequence[Sequence[Path]], count: int) -> list[Words]:
    """Words that all files of a channel have, and those of the other channels do not."""
    common: list[Words | None] = [None] * count
    for images in examples:
        names = [words_of(io.scan_name(path)) for path in images]
        for channel in range(count if len(names) == count else 0):
            others = [name for n, name in enumerate(names) if n != channel]
            own = names[channel].difference(*others)
            known = common[channel]
            common[channel] = own if known is None else known & own
    return [words or frozenset() for words in common]


def _channel_of(piece: Piece, marks: Sequence[Sequence[Words]]) -> tuple[int | None, str]:
    """Channel of an image, and its case's name; nothing when several channels fit alike."""
    if piece.of > 1:
        return (piece.channel if piece.of == len(marks) else None), piece.name
    numbered = NUMBERED.match(piece.name)
    if numbered and int(numbered[2]) < len(marks):
        return int(numbered[2]), numbered[1]
    whole = piece.name if piece.stem is None else piece.stem
    for text, stem in ((piece.name, piece.stem), (piece.path.parent.name, whole)):
        words = words_of(text)
        fitting = [(len(m), n, m) for n, own in enumerate(marks) for m in own if m and m <= words]
        longest = [found for found in fitting if found[0] == max(fitting)[0]]
        if len({n for _, n, _ in longest}) == 1:
            _, channel, mark = longest[0]
            return channel, _without(text, mark) if stem is None else stem
    return None, piece.name


def _without(name: str, mark: Words) -> str:
    """Take the words of a channel out of a name."""
    parts = re.split(r"([\W_]+)", name)
    kept = [part for part in parts[::2] if part and part.casefold() not in mark]
    between = next((part for part in parts[1::2] if part), "_")
    return between.join(kept)


def _plainest(pieces: Sequence[Piece]) -> Path | None:
    """Of p1_t1 and p1_t1_post the first is t1: all that it says, the other says too."""
    words = [words_of(piece.name) for piece in pieces]
    plain = [p for p, own in zip(pieces, words, strict=True) if all(own <= w for w in words)]
    return plain[0].path if len(plain) == 1 else None


def _eliminated(
    row: Row,
    key: tuple[str, Path | None],
    found: dict[int, list[Piece]],
    untold: Sequence[Piece],
) -> Row:
    """Where one channel is missing and one image is left over in the same place, it is that."""
    missing = [n for n in range(len(row.images)) if n not in found]
    places = {piece.place for pieces in found.values() for piece in pieces}
    left = [p for p in untold if p.place in places and p.name.startswith(key[0])]
    if len(missing) != 1 or len(left) != 1:
        return row
    images = tuple(left[0].path if n == missing[0] else p for n, p in enumerate(row.images))
    return Row(row.name, images)


def _without_channel(pieces: Sequence[Piece], count: int) -> list[Row]:
    """Cases of which nothing but a name can be told, by what their images' names begin with."""
    names: dict[tuple[Path, str], str] = {}
    for piece in pieces:
        parts = [part for part in re.split(r"[\W_]+", piece.name) if part]
        begin = "_".join(parts[:-1]) if piece.stem is None else piece.stem
        names[piece.place, begin] = begin or piece.place.name
    return [Row(name, (None,) * count) for name in names.values()]
