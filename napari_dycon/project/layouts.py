"""Folder layouts in which the field's benchmarks are handed out, recognised and read as cases.

- BraTS 2019: ``HGG/ID/ID_flair.nii.gz`` (also ``_t1``, ``_t1ce``, ``_t2``, and ``_seg`` with the
  values 1, 2 and 4), with or without the folders ``HGG`` and ``LGG``.
- ISLES 2022: BIDS, ``sub-ID/ses-0001/dwi/*_dwi.nii.gz`` and ``*_adc.nii.gz``, masks below
  ``derivatives``. Its FLAIR lies on another grid and is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from napari_dycon.errors import UserError


@dataclass(frozen=True)
class FoundCase:
    """One case of a layout: a file a channel, and its label if there is one."""

    id: str
    images: list[Path]
    label: Path | None


@dataclass(frozen=True)
class Layout:
    """A folder that was recognised."""

    name: str
    channels: tuple[str, ...]
    classes: dict[int, str]
    cases: list[FoundCase]


BRATS_CHANNELS = ("flair", "t1", "t1ce", "t2")
BRATS_CLASSES = {1: "necrotic core", 2: "oedema", 4: "enhancing tumour"}
ISLES_CHANNELS = ("dwi", "adc")


def recognise(folder: Path) -> Layout | None:
    """Return the layout of a folder, or ``None`` when it has none of those known here.

    Raises
    ------
    UserError
        It is one of them, but a case lacks one of its files.
    """
    readers: tuple[Callable[[Path], Layout | None], ...] = (_brats, _isles)
    for reader in readers:
        if (found := reader(folder)) is not None:
            return found
    return None


def _brats(folder: Path) -> Layout | None:
    marked = sorted({*folder.glob("*/*_flair.nii*"), *folder.glob("[HL]GG/*/*_flair.nii*")})
    cases = []
    for flair in marked:
        name = flair.name.split("_flair.nii")[0]
        if name != flair.parent.name:
            continue
        images = [_one_of(flair.parent, f"{name}_{channel}") for channel in BRATS_CHANNELS]
        if images[1] is None and images[3] is None:
            return None  # some other set that happens to have a FLAIR
        cases.append(
            FoundCase(
                name,
                _complete(name, BRATS_CHANNELS, images),
                _one_of(flair.parent, f"{name}_seg"),
            )
        )
    return Layout("BraTS 2019", BRATS_CHANNELS, BRATS_CLASSES, cases) if cases else None


def _isles(folder: Path) -> Layout | None:
    cases = []
    root = folder / "rawdata" if (folder / "rawdata").is_dir() else folder
    for dwi in sorted(root.glob("sub-*/ses-*/dwi/*_dwi.nii*")):
        subject = dwi.parents[2].name
        adc = next(iter(sorted(dwi.parent.glob("*_adc.nii*"))), None)
        if adc is None:  # later editions keep it beside the folder
            adc = next(iter(sorted(dwi.parents[1].glob("**/*_adc.nii*"))), None)
        masks = sorted(folder.glob(f"derivatives/**/{subject}/**/*_msk.nii*"))
        images = _complete(subject, ISLES_CHANNELS, [dwi, adc])
        cases.append(FoundCase(subject, images, masks[0] if masks else None))
    return Layout("ISLES 2022", ISLES_CHANNELS, {1: "infarct"}, cases) if cases else None


def _one_of(folder: Path, stem: str) -> Path | None:
    for ending in (".nii.gz", ".nii"):
        if (path := folder / f"{stem}{ending}").is_file():
            return path
    return None


def _complete(case: str, channels: tuple[str, ...], images: list[Path | None]) -> list[Path]:
    lacking = [name for name, path in zip(channels, images, strict=True) if path is None]
    if lacking:
        raise UserError(
            f"Case {case} has no {' and no '.join(lacking)} image; expected one file each for "
            f"{', '.join(channels)}. Complete the case or move it away."
        )
    return [path for path in images if path is not None]
