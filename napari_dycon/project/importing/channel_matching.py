"""Assignment of images to channels and cases by name: a proposal that the user can correct.

Whole words are compared, so that a patient without t1 does not get t1ce instead.
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
from napari_dycon.io.files import find_files
from napari_dycon.io.reading import SUPPORTED_FORMATS
from napari_dycon.project.importing.discovery import CHANNEL_SUFFIX, list_channel_paths

Tokens = frozenset[str]


@dataclass(frozen=True)
class ImageCandidate:
    """One image that may be a channel: a file, a channel of a 4D file, or a DICOM series.

    Attributes
    ----------
    path : path for ``io.read_volume``
    display_name : name that distinguishes it from the other images
    name : name in which the words of a channel may occur
    group_folder : folder of images that may belong to one case
    stem : name of the case, if it does not follow from ``name``
    channel : number in a 4D file, from 0
    channel_count : number of channels of this file
    """

    path: Path
    display_name: str
    name: str
    group_folder: Path
    stem: str | None = None
    channel: int = 0
    channel_count: int = 1


ImageGroup = dict[int, list[ImageCandidate]]  # images of a case by channel
GroupKey = tuple[str, Path | None]  # name of a case, and its folder if needed to distinguish it


@dataclass(frozen=True)
class CaseDraft:
    """A partly recognized case: one image per channel, ``None`` for missing ones."""

    name: str
    images: tuple[Path | None, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every channel has its image."""
        return None not in self.images


def tokenize(text: str) -> Tokens:
    """Split a name into words at any separators."""
    return frozenset(re.split(r"[\W_]+", text.casefold())) - {""}


def candidates_from(
    paths: Sequence[Path], progress: Callable[[int, int], None] | None = None
) -> list[ImageCandidate]:
    """Build candidates from selected files and folders; reads headers, so it may take a while."""
    candidates: dict[Path, ImageCandidate] = {}
    series_by_folder: dict[Path, list[discovery.Series]] = {}
    files = []
    for path in (path.absolute() for path in paths):
        if not path.is_dir():
            files.append(path)
        elif scans := [file for file in find_files(path) if io.is_scan(file)]:
            files += scans
        else:
            for one in discovery.find_series(path, progress=progress):
                series_by_folder.setdefault(one.path.parent, []).append(one)
                files.append(one.path)
    for number, file in enumerate(files):
        if progress:
            progress(number, len(files))
        if not file.exists():
            raise FileFormatError(f"File {file} does not exist. Check its name and folder.")
        if io.is_scan(file):
            candidates.update(
                {candidate.path: candidate for candidate in _build_file_candidates(file)}
            )
            continue
        if file.parent not in series_by_folder:
            series_by_folder[file.parent] = discovery.find_series(file.parent, recursive=False)
        matching = discovery.series_containing(file, series_by_folder[file.parent])
        for one in matching:
            if len(one.slices) > 1 and one.path not in candidates:
                candidates[one.path] = _build_series_candidate(one, series_by_folder[file.parent])
        if not matching:
            raise FileFormatError(f"{file.name} is not a scan; expected {SUPPORTED_FORMATS}.")
    if not candidates:
        raise FileFormatError(
            "No scan with several slices was found; X-rays and screenshots are not 3D. "
            "Choose other files."
        )
    return _disambiguate(list(candidates.values()))


def _build_file_candidates(file: Path) -> list[ImageCandidate]:
    name = io.scan_name(file)
    channels = list_channel_paths(file)
    if len(channels) == 1:
        return [ImageCandidate(file, file.name, name, file.parent)]
    return [
        ImageCandidate(
            path, f"{file.name}, channel {n + 1}", name, file.parent, name, n, len(channels)
        )
        for n, path in enumerate(channels)
    ]


def _build_series_candidate(
    series: discovery.Series, siblings: Sequence[discovery.Series]
) -> ImageCandidate:
    """Build a candidate from a series, which may be in a subfolder of its patient's folder."""
    folder = series.path.parent
    is_single = sum(len(one.slices) > 1 for one in siblings) == 1
    text = f"{folder.name}: {series.description or 'no description'}"
    return ImageCandidate(
        series.path, text, series.description, folder.parent if is_single else folder, stem=""
    )


def _disambiguate(candidates: list[ImageCandidate]) -> list[ImageCandidate]:
    """Add the folder to the display names of candidates that share a name."""
    count = Counter(candidate.display_name for candidate in candidates)
    return [
        replace(candidate, display_name=f"{candidate.path.parent.name}/{candidate.display_name}")
        if count[candidate.display_name] > 1
        else candidate
        for candidate in candidates
    ]


def assign_channels(
    candidates: Sequence[ImageCandidate],
    channels: Sequence[str],
    *,
    examples: Sequence[Sequence[Path]] = (),
    strict: bool = False,
) -> list[CaseDraft]:
    """Group images into cases and assign them to channels.

    A channel is recognized by its position in a 4D file, by nnU-Net's suffix ``_0000``, by its
    words in the name of the file, of its folder or in a series' description, or by the words that
    files of this channel have in common in other cases.

    Parameters
    ----------
    examples : files of known cases, one per channel
    strict : assign by names alone: no channels by elimination, no cases of unmatched images

    Returns
    -------
    cases by name; a channel with several images, or none, is ``None``
    """
    channel_tokens = [[tokenize(channel)] for channel in channels]
    for tokens, common in zip(channel_tokens, _common_tokens(examples, len(channels)), strict=True):
        if common:
            tokens.append(common)
    groups, unassigned = _group_by_name(candidates, channel_tokens)
    drafts = [
        CaseDraft(
            stem if folder is None else folder.name,
            tuple(_shortest_name(group.get(n, ())) for n in range(len(channels))),
        )
        for (stem, folder), group in groups.items()
    ]
    if not strict:
        drafts = [
            _assign_by_elimination(draft, stem, group, unassigned)
            for draft, ((stem, _), group) in zip(drafts, groups.items(), strict=True)
        ]
        drafts = _add_unassigned_cases(drafts, unassigned, len(channels))
    return sorted(drafts, key=lambda draft: draft.name)


def _group_by_name(
    candidates: Sequence[ImageCandidate], channel_tokens: Sequence[Sequence[Tokens]]
) -> tuple[dict[GroupKey, ImageGroup], list[ImageCandidate]]:
    """First pass: group the images whose names contain a channel; also return the other images.

    Images whose names have the same remainder are a case. If the remainder is empty or a channel
    would occur twice, as for equal file names in many folders, images in one folder are a case.
    """
    unassigned: list[ImageCandidate] = []
    stems: dict[str, list[tuple[int, ImageCandidate]]] = defaultdict(list)
    for candidate in candidates:
        number, stem = _match_channel(candidate, channel_tokens)
        if number is None:
            unassigned.append(candidate)
        else:
            stems[stem].append((number, candidate))
    groups: dict[GroupKey, ImageGroup] = {}
    for stem, members in stems.items():
        is_per_folder = not stem or len({channel for channel, _ in members}) < len(members)
        for channel, candidate in members:
            key = (stem, candidate.group_folder if is_per_folder else None)
            groups.setdefault(key, {}).setdefault(channel, []).append(candidate)
    return groups, unassigned


def _assign_by_elimination(
    draft: CaseDraft, stem: str, group: ImageGroup, unassigned: Sequence[ImageCandidate]
) -> CaseDraft:
    """Second pass: one remaining image in the folder of a case is its one missing channel."""
    missing = [n for n in range(len(draft.images)) if n not in group]
    folders = {candidate.group_folder for members in group.values() for candidate in members}
    remaining = [p for p in unassigned if p.group_folder in folders and p.name.startswith(stem)]
    if len(missing) != 1 or len(remaining) != 1:
        return draft
    images = tuple(remaining[0].path if n == missing[0] else p for n, p in enumerate(draft.images))
    return CaseDraft(draft.name, images)


def _add_unassigned_cases(
    drafts: Sequence[CaseDraft], unassigned: Sequence[ImageCandidate], n_channels: int
) -> list[CaseDraft]:
    """Third pass: add cases without images for the rest, unless they belong to a complete case."""
    used = {path for draft in drafts for path in draft.images}
    known_names = {draft.name for draft in drafts}
    remaining = [candidate for candidate in unassigned if candidate.path not in used]
    drafts = [
        *drafts,
        *(d for d in _unassigned_cases(remaining, n_channels) if d.name not in known_names),
    ]
    # Of p1_t1, p1_flair and p1_t1_post the last one is probably not a separate case.
    complete_names = [tokenize(draft.name) for draft in drafts if draft.is_complete]
    return [
        draft
        for draft in drafts
        if draft.is_complete or not any(words <= tokenize(draft.name) for words in complete_names)
    ]


def _common_tokens(examples: Sequence[Sequence[Path]], count: int) -> list[Tokens]:
    """Find the words that all files of a channel have and files of other channels do not."""
    common: list[Tokens | None] = [None] * count
    for images in examples:
        names = [tokenize(io.scan_name(path)) for path in images]
        for channel in range(count if len(names) == count else 0):
            others = [name for n, name in enumerate(names) if n != channel]
            distinctive = names[channel].difference(*others)
            known = common[channel]
            common[channel] = distinctive if known is None else known & distinctive
    return [words or frozenset() for words in common]


def _match_channel(
    candidate: ImageCandidate, channel_tokens: Sequence[Sequence[Tokens]]
) -> tuple[int | None, str]:
    """Find the channel and case name of an image; no channel if several match equally."""
    if candidate.channel_count > 1:
        return (
            candidate.channel if candidate.channel_count == len(channel_tokens) else None
        ), candidate.name
    match = CHANNEL_SUFFIX.match(candidate.name)
    if match and int(match[2]) < len(channel_tokens):
        return int(match[2]), match[1]
    folder_stem = candidate.name if candidate.stem is None else candidate.stem
    for text, stem in ((candidate.name, candidate.stem), (candidate.path.parent.name, folder_stem)):
        tokens = tokenize(text)
        matches = [
            (len(m), n, m) for n, own in enumerate(channel_tokens) for m in own if m and m <= tokens
        ]
        longest = [found for found in matches if found[0] == max(matches)[0]]
        if len({n for _, n, _ in longest}) == 1:
            _, channel, matched = longest[0]
            return channel, _strip_tokens(text, matched) if stem is None else stem
    return None, candidate.name


def _strip_tokens(name: str, tokens: Tokens) -> str:
    """Remove the words of a channel from a name."""
    parts = re.split(r"([\W_]+)", name)
    kept = [part for part in parts[::2] if part and part.casefold() not in tokens]
    separator = next((part for part in parts[1::2] if part), "_")
    return separator.join(kept)


def _shortest_name(candidates: Sequence[ImageCandidate]) -> Path | None:
    """Choose the image whose words all others contain: p1_t1 of p1_t1 and p1_t1_post."""
    tokens = [tokenize(candidate.name) for candidate in candidates]
    shortest = [
        p for p, own in zip(candidates, tokens, strict=True) if all(own <= w for w in tokens)
    ]
    return shortest[0].path if len(shortest) == 1 else None


def _unassigned_cases(candidates: Sequence[ImageCandidate], count: int) -> list[CaseDraft]:
    """Build cases without assigned images, named by the prefix of their images' names."""
    names: dict[tuple[Path, str], str] = {}
    for candidate in candidates:
        parts = [part for part in re.split(r"[\W_]+", candidate.name) if part]
        prefix = "_".join(parts[:-1]) if candidate.stem is None else candidate.stem
        names[candidate.group_folder, prefix] = prefix or candidate.group_folder.name
    return [CaseDraft(name, (None,) * count) for name in names.values()]
