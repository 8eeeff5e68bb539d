"""Endless work for tests that kill it; each function records what it has finished.

A version of a voxel array is made from its number, and its number can be read back from the array,
so that what lies on the disk is known to be one of those that were written, and which.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from helpers.nifti_files import save_nifti
from napari_dycon.exports.options import ExportOptions
from napari_dycon.exports.registry import EXPORTERS, export
from napari_dycon.io import scan_name
from napari_dycon.project.prediction_store import PredictionMetadata
from napari_dycon.project.store import Project
from napari_dycon.session import Session

BITS = 32
NOTE = struct.Struct("<qqd")  # what, number, seconds of the system's monotonic clock
TICK = 1.0  # seconds between saves, as in the window
EXPORTS = ("nifti", "nrrd", "nnunet", "monai-bundle")
Label = npt.NDArray[np.uint8]


def draw_number(number: int, shape: tuple[int, ...]) -> Label:
    """Label number ``number``; every second one is annotated in part."""
    label = ((np.arange(np.prod(shape)) * 7 + number) % 3 == 0).astype(np.uint8).reshape(shape)
    flat = label.reshape(-1)
    flat[:BITS] = [number >> bit & 1 for bit in range(BITS)]
    if number % 2:
        label[-1] = 255
    return label


def decode_number(label: npt.NDArray[Any]) -> int:
    """Number of a version, or an ``AssertionError`` where it is none, or not whole."""
    bits = label.reshape(-1)[:BITS]
    number = sum(1 << bit for bit in range(BITS) if bits[bit])
    assert np.array_equal(label, draw_number(number, label.shape)), "a mixture of versions"
    return number


class Notes:
    """What was finished, in a file that every process on the machine sees at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, what: int, number: int) -> None:
        """Note that something is finished now."""
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, NOTE.pack(what, number, time.monotonic()))
        os.close(handle)

    def read(self) -> list[tuple[int, int, float]]:
        """All notes so far."""
        data = self._path.read_bytes() if self._path.exists() else b""
        return list(NOTE.iter_unpack(data[: len(data) // NOTE.size * NOTE.size]))


def paint(path: Path, notes: Path, first: int, case: int, tick: float) -> None:
    """Paint strokes without an end, saved as the window saves them, case after case."""
    session, log = Session(), Notes(notes)
    session.open_project(path)
    ids = [one.id for one in session.require_project().cases]
    number = first
    while True:
        session.show_case(ids[case % len(ids)])
        view = session.require_case()
        for _ in range(3):
            saved = time.monotonic()
            while time.monotonic() - saved < tick:
                view.label[:] = draw_number(number, view.label.shape)
                log.add(case % len(ids), number)
                number += 1
                time.sleep(0.005)
            session.save_label()
        case += 1


def predict(path: Path, notes: Path, first: int) -> None:
    """Write predictions of one run and case without an end."""
    project, log = Project.open(path), Notes(notes)
    run = project.runs.list()[0].id
    case = project.cases[0].id
    shape = project.read_grid(case).shape
    for number in range(first, 2**30):
        mask = draw_number(number * 2, shape)
        project.predictions.write(run, case, mask, mask * 0.5, mask * 0.25)
        project.predictions.write_metadata(run, case, PredictionMetadata(score=float(number)))
        log.add(0, number)


def change(path: Path, notes: Path, first: int, scans: Path) -> None:
    """Change ``project.json`` without an end: a class's name, a case's status, another case."""
    project, log = Project.open(path), Notes(notes)
    value, case = project.classes[0].value, project.cases[-1].id
    for number in range(first, 2**30):
        project.update_class(value, name=f"box {number}")
        log.add(0, number)
        project.set_status(project.cases[0].id, ("in_progress", "labeled")[number % 2])
        project.set_split(case, ("train", "validation")[number % 2])
        if number % 10 == 0:
            scan = scans / f"added-{number}.nii.gz"  # one that the project does not hold yet
            save_nifti(scan, np.arange(210, dtype=np.int32).reshape(5, 6, 7) + number)
            (added,) = project.add_cases([scan])
            log.add(1, number)
            assert added.id == scan_name(scan)


def send_out(path: Path, notes: Path, first: int, out: Path) -> None:
    """Export a project in one format after the other, without an end."""
    project, log = Project.open(path), Notes(notes)
    all_masks = ExportOptions(include_partial=True, include_unreviewed=True)
    for number in range(first, 2**30):
        format_ = EXPORTS[number % len(EXPORTS)]
        whole = format_ in ("nnunet", "monai-bundle")  # new each time
        target = out / (f"{format_}-{number}" if whole else format_)
        takes_masks = "include_partial" in EXPORTERS[format_].options
        export(project, format_, target, all_masks if takes_masks else None)
        log.add(0, number)
