"""nnU-Net raw and the Medical Segmentation Decathlon.

- nnU-Net raw: ``imagesTr/CASE_0000.nii.gz``, ``labelsTr/CASE.nii.gz`` and ``dataset.json`` with the
  names of channels and classes; ``imagesTs`` are cases without labels. "ignore" becomes "not
  annotated".
- Medical Segmentation Decathlon: the same with ``imagesTr/CASE.nii.gz``, 4D if there are several
  channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.core.untrusted import read_json
from napari_dycon.errors import UserError
from napari_dycon.project.importing.discovery import contains_scans, find_labels, find_scans
from napari_dycon.project.importing.layouts.layout import Layout, LayoutCase

MAX_DESCRIPTION_BYTES = 2**24  # of dataset.json


def read_msd_nnunet(folder: Path) -> Layout | None:
    """Read a dataset of this layout; ``None`` if the folder has another one."""
    description = folder / "dataset.json"
    if not description.is_file() or not (folder / "imagesTr").is_dir():
        return None
    try:
        values = _require_mapping(read_json(description, MAX_DESCRIPTION_BYTES), "it")
        channels, classes, ignore = _read_channel_names(values), *_read_classes(values)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{description} cannot be read as the description of a dataset ({error}). Expected the "
            "dataset.json of nnU-Net or the Medical Segmentation Decathlon."
        ) from None
    labels = find_labels(folder / "labelsTr") if contains_scans(folder / "labelsTr") else {}
    scans = find_scans(folder / "imagesTr", "images", known_names=labels)
    cases = [LayoutCase(scan.name, list(scan.images), labels.get(scan.name)) for scan in scans]
    if stray := sorted(set(labels) - {scan.name for scan in scans}):
        raise UserError(
            f"Label {stray[0]} in labelsTr of {folder} has no scan in imagesTr. Expected a scan "
            "for each label; check that the dataset was copied completely."
        )
    if contains_scans(folder / "imagesTs"):
        known = {case.id for case in cases}
        cases += [
            LayoutCase(
                f"{scan.name}{'-Ts' * (scan.name in known)}", list(scan.images), None, is_test=True
            )
            for scan in find_scans(folder / "imagesTs", "images")
        ]
    return Layout(
        str(values.get("name") or folder.name),
        channels,
        classes,
        cases,
        {} if ignore is None else {ignore: UNANNOTATED},
        "nnU-Net" if "channel_names" in values else "Medical Segmentation Decathlon",
    )


def read_class_names(description: Path) -> dict[int, str]:
    """Read the names of classes from a ``dataset.json``; empty if it has none or is damaged."""
    try:
        values = _require_mapping(read_json(description, MAX_DESCRIPTION_BYTES), "it")
        return _read_classes(values)[0]
    except (OSError, ValueError, UserError):
        return {}


def _require_mapping(values: Any, name: str) -> dict[str, Any]:
    """Return a mapping of dataset.json; raises ``ValueError`` for other values."""
    if not isinstance(values, dict) or not values:
        raise ValueError(f"{name} is not a mapping of names and values")
    return values


def _read_channel_names(values: dict[str, Any]) -> tuple[str, ...]:
    key = "channel_names" if "channel_names" in values else "modality"
    names = _require_mapping(values.get(key), f'"{key}"')
    if not all(str(number).isdecimal() for number in names):
        raise ValueError(f'"{key}" does not number the channels from 0')
    return tuple(str(names[number]) for number in sorted(names, key=int))


def _read_classes(values: dict[str, Any]) -> tuple[dict[int, str], int | None]:
    """Read class names by value, and the value of unannotated voxels."""
    classes: dict[int, str] = {}
    ignore = None
    for key, value in _require_mapping(values.get("labels"), '"labels"').items():
        # nnU-Net 2 maps names to values, nnU-Net 1 and the Decathlon values to names.
        number, name = (key, str(value)) if key.isdecimal() else (value, key)
        if isinstance(number, list):
            raise UserError(
                f"The dataset defines regions ({name}); expected one value per structure. List "
                "each value separately in dataset.json."
            )
        if not str(number).isdecimal() or not 0 <= int(number) < UNANNOTATED or not name.strip():
            raise ValueError(f'"labels" gives {name!r} the value {number!r}; expected 0 to 254')
        if name == "ignore":
            ignore = int(number)
        elif int(number):
            classes[int(number)] = name.strip()
    if not classes:
        raise ValueError('"labels" names no structure')
    return classes, ignore
