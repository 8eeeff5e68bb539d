"""BraTS 2019.

``HGG/ID/ID_flair.nii.gz`` (also ``_t1``, ``_t1ce``, ``_t2``, and ``_seg`` with the values 1, 2 and
4), with or without the folders ``HGG`` and ``LGG``.
"""

from __future__ import annotations

from pathlib import Path

from napari_dycon.project.importing.layouts.layout import Layout, LayoutCase

CHANNELS = ("flair", "t1", "t1ce", "t2")
CLASSES = {1: "necrotic core", 2: "edema", 4: "enhancing tumor"}


def read_brats(folder: Path) -> Layout | None:
    """Read a dataset of this layout; ``None`` if the folder has another one."""
    flair_files = sorted({*folder.glob("*/*_flair.nii*"), *folder.glob("[HL]GG/*/*_flair.nii*")})
    images_by_patient = {}
    for flair in flair_files:
        name = flair.name.split("_flair.nii")[0]
        if name == flair.parent.name:
            images_by_patient[flair.parent] = [
                _find_image(flair.parent, f"{name}_{channel}") for channel in CHANNELS
            ]
    if not any(all(images) for images in images_by_patient.values()):
        return None  # another dataset with a FLAIR
    cases = [
        LayoutCase(patient.name, images, _find_image(patient, f"{patient.name}_seg"))
        for patient, images in images_by_patient.items()
    ]
    return Layout("BraTS 2019", CHANNELS, CLASSES, cases)


def _find_image(folder: Path, stem: str) -> Path | None:
    for ending in (".nii.gz", ".nii"):
        if (path := folder / f"{stem}{ending}").is_file():
            return path
    return None
