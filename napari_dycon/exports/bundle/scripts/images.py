"""Listing and reading of scans, and writing of results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
from monai.data import NibabelReader, NibabelWriter
from monai.utils import ensure_tuple

SUFFIXES = (".nii.gz", ".nii")


def find_scans(folder: str, channels: int, output: str) -> list[dict[str, Any]]:
    """List the scans of a folder as dicts of ``name`` and ``image``, the paths of the channels.

    With several channels, each scan has one file per channel: ``NAME_0000.nii.gz``,
    ``NAME_0001.nii.gz`` and so on. With one channel, each file is a scan; if all names end in
    ``_0000``, the suffix is removed.

    Raises
    ------
    ValueError
        There are no scans, the channels of a scan are incomplete, or results would overwrite scans.
    """
    if Path(folder).resolve() == Path(output).resolve():
        raise ValueError("Scans and results share a folder; choose another output_dir.")
    files = {
        path: next(path.name[: -len(s)] for s in SUFFIXES if path.name.lower().endswith(s))
        for path in sorted(Path(folder).iterdir())
        if path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")
    }
    if not files:
        raise ValueError(f"{folder} contains no scans; expected .nii or .nii.gz files.")
    numbered = channels > 1 or all(stem.endswith("_0000") for stem in files.values())
    scans: dict[str, dict[int, Path]] = {}
    for path, stem in files.items():
        match = re.fullmatch(r"(.+)_(\d{4})", stem) if numbered else None
        if numbered and not match:
            raise ValueError(
                f"{path.name} has no channel suffix; expected {stem}_0000.nii.gz to "
                f"{stem}_{channels - 1:04d}.nii.gz."
            )
        name, channel = (match[1], int(match[2])) if match else (stem, 0)
        if channel in scans.setdefault(name, {}):
            raise ValueError(f"{folder} contains channel {channel} of {name} twice; remove one.")
        scans[name][channel] = path
    for name, parts in scans.items():
        if sorted(parts) != list(range(channels)):
            raise ValueError(
                f"{name} has the channels {sorted(parts)}; expected {list(range(channels))}."
            )
    return [
        {"name": name, "image": [str(parts[channel]) for channel in sorted(parts)]}
        for name, parts in scans.items()
    ]


class AffineAsStored(NibabelReader):  # type: ignore[misc]
    """NIfTI reader that keeps the affine of the file.

    MONAI's reader replaces an affine that contradicts the voxel sizes of the header, but the
    network was trained on scans positioned by their affines.
    """

    def read(self, data: Sequence[PathLike[str]] | PathLike[str], **_: Any) -> Any:
        """Open one file, or one file per channel."""
        self.filenames = ensure_tuple(data)
        images = [nib.load(name) for name in self.filenames]
        return images if len(images) > 1 else images[0]


class OwnGridWriter(NibabelWriter):  # type: ignore[misc]
    """NIfTI writer for results that are already on the grid of their scan.

    MONAI 1.6 decides from the first two axes whether to resample and fails if one of them is
    vertical; it also does not set the unit.
    """

    @classmethod
    def resample_if_needed(cls, data_array: Any, affine: Any, **_: Any) -> tuple[Any, Any]:
        """Return voxels and affine as they are."""
        return data_array, affine

    @classmethod
    def create_backend_obj(cls, *args: Any, **kwargs: Any) -> nib.Nifti1Image:
        """Make an image in millimeters."""
        image = super().create_backend_obj(*args, **kwargs)
        image.header.set_xyzt_units("mm")
        return image
