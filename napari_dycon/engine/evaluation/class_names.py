"""Names of the classes in masks, where a file beside them tells."""

from __future__ import annotations

import contextlib
from pathlib import Path

from napari_dycon.errors import DyconError
from napari_dycon.project import manifest
from napari_dycon.project.importing.layouts.msd_nnunet import read_class_names
from napari_dycon.project.prediction_origin import read_origin

MAX_RECORDS = 1000  # of predictions, of which one is enough
MAX_VALUE = 254


def find_class_names(predictions: Path, references: Path) -> dict[int, str]:
    """Find the names of the classes of two folders of masks, by value; empty if none are known.

    They are taken from the records of predictions, from a ``dataset.json`` in or above one of the
    folders, or from the project that one of them belongs to, whichever comes first.
    """
    for folder in (predictions, references):
        for path in sorted(folder.glob("*.json"))[:MAX_RECORDS]:
            origin = read_origin(path)
            if origin is not None and (names := _convert(origin.classes or {})):
                return names
    for folder in (references, predictions):
        for place in (folder, folder.absolute().parent):
            if names := read_class_names(place / "dataset.json"):
                return names
    for folder in (references, predictions):
        for place in folder.absolute().parents[:2]:  # labels/ and predictions/RUN/ of a project
            if (place / "project.json").is_file():
                with contextlib.suppress(DyconError, OSError):
                    return {info.value: info.name for info in manifest.read(place).classes}
    return {}


def _convert(names: dict[str, str]) -> dict[int, str]:
    return {
        int(value): name
        for value, name in names.items()
        if value.isascii() and value.isdecimal() and 1 <= int(value) <= MAX_VALUE and name
    }
