"""Records of predictions that were accepted into labels: ``predictions/RUN/accepted/CASE.json``.

A Dice between a label and the prediction that it was made from says nothing about the network.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from napari_dycon.core.atomic import ensure_dir, write_json
from napari_dycon.core.containment import ensure_links_within, ensure_within
from napari_dycon.core.types import UNANNOTATED, LabelArray
from napari_dycon.core.untrusted import read_json
from napari_dycon.errors import ProjectError
from napari_dycon.project.store import Project

Checksum = Annotated[int, Field(ge=0, lt=2**32)]


class AcceptanceRecord(BaseModel):
    """How a label came from a prediction; checksums are those of the whole label."""

    model_config = ConfigDict(frozen=True, strict=True)

    label_before: Checksum = Field(description="Checksum before the first acceptance.")
    label_after: Checksum = Field(description="Checksum after the newest acceptance.")
    is_undone: bool = Field(default=False, description="Whether the acceptance was undone.")


def record_acceptance(
    project: Project, run_id: str, case_id: str, before: LabelArray, after: LabelArray
) -> None:
    """Record that a label was changed by accepting a run's prediction, or a part of it."""
    previous = _read_record(project, run_id, case_id)
    label_before = compute_checksum(before)
    if previous is not None and not previous.is_undone:
        label_before = previous.label_before
    record = AcceptanceRecord(label_before=label_before, label_after=compute_checksum(after))
    _write_record(project, run_id, case_id, record)


def update_after_undo(project: Project, run_id: str, case_id: str, label: LabelArray) -> bool:
    """Update the record after an undo or redo in the window; returns whether it changed."""
    record = _read_record(project, run_id, case_id)
    if record is None:
        return False
    checksum = compute_checksum(label)
    if record.is_undone and checksum == record.label_after:
        _write_record(project, run_id, case_id, record.model_copy(update={"is_undone": False}))
        return True
    if not record.is_undone and checksum == record.label_before:
        _write_record(project, run_id, case_id, record.model_copy(update={"is_undone": True}))
        return True
    return False


def has_acceptance_record(project: Project, run_id: str, case_id: str) -> bool:
    """Whether an acceptance was recorded, undone or not."""
    try:
        return _record_path(project, run_id, case_id).exists()
    except ProjectError:
        return False


def is_accepted(
    project: Project, run_id: str, case_id: str, label: LabelArray, prediction: LabelArray
) -> bool:
    """Whether a label comes from a run's prediction, at least in part.

    This holds if its acceptance was recorded and not undone, or if both are equal wherever the
    label is annotated, as a label drawn by hand never is.
    """
    is_annotated = label != UNANNOTATED
    if not np.any(label[is_annotated]):
        return False
    if np.array_equal(label[is_annotated], prediction[is_annotated]):
        return True
    record = _read_record(project, run_id, case_id)
    if record is None or record.is_undone:
        return False
    return record.label_before != compute_checksum(label)


def has_recorded_acceptance(
    project: Project, case_id: str, label: LabelArray | None = None
) -> bool:
    """Whether a label comes from any accepted prediction, also from one that was never finished.

    Previews and preliminary predictions are accepted, too, and are not kept.

    Parameters
    ----------
    label : if it is not given, a record of any label counts
    """
    for run in project.runs.list():
        if not has_acceptance_record(project, run.id, case_id):
            continue
        record = _read_record(project, run.id, case_id)
        if record is None or record.is_undone:
            continue
        if label is None or record.label_before != compute_checksum(label):
            return True
    return False


def _read_record(project: Project, run_id: str, case_id: str) -> AcceptanceRecord | None:
    """Read a record; ``None`` if there is none or it is damaged."""
    try:
        path = ensure_links_within(project.path, _record_path(project, run_id, case_id))
        return AcceptanceRecord.model_validate(read_json(path))
    except (OSError, ValueError, ProjectError):
        return None


def _write_record(project: Project, run_id: str, case_id: str, record: AcceptanceRecord) -> None:
    project.require_writable()
    path = ensure_within(project.path, _record_path(project, run_id, case_id))
    ensure_dir(path.parent, existing_root=project.path)
    write_json(path, record.model_dump(mode="json"))


def _record_path(project: Project, run_id: str, case_id: str) -> Path:
    mask = project.predictions.path(run_id, case_id)
    return mask.parent / "accepted" / f"{project.get_case(case_id).id}.json"


def compute_checksum(label: LabelArray) -> int:
    """Compute the checksum of a label, as records have it."""
    return zlib.crc32(np.ascontiguousarray(label).data)
