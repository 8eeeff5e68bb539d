"""Records of predictions that were accepted into labels: ``predictions/RUN/accepted/CASE.json``.

A Dice between a label and the prediction that it was made from says nothing about the network.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from napari_dycon.core.atomic import ensure_dir, write_json
from napari_dycon.core.containment import ensure_links_within, ensure_within
from napari_dycon.core.types import UNANNOTATED, LabelArray
from napari_dycon.core.untrusted import parse_integer, read_json
from napari_dycon.errors import ProjectError
from napari_dycon.project.store import Project

MAX_CHECKSUM = 2**32 - 1


def record_acceptance(project: Project, run_id: str, case_id: str, before: LabelArray) -> None:
    """Record that a label was changed by accepting a run's prediction, or a part of it.

    Parameters
    ----------
    before : the label before; one that is equal to it was restored by undo
    """
    project.require_writable()
    path = ensure_within(project.path, _record_path(project, run_id, case_id))
    if path.exists():  # undoing the first acceptance undoes the later ones, too
        return
    ensure_dir(path.parent, existing_root=project.path)
    write_json(path, {"label_before": _compute_checksum(before)})


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
    try:
        path = ensure_links_within(project.path, _record_path(project, run_id, case_id))
        values = read_json(path)
    except (OSError, ValueError, ProjectError):
        return False
    if not isinstance(values, dict):
        return False
    before = parse_integer(values.get("label_before"), 0, MAX_CHECKSUM)
    return before is not None and before != _compute_checksum(label)


def _record_path(project: Project, run_id: str, case_id: str) -> Path:
    mask = project.predictions.path(run_id, case_id)
    return mask.parent / "accepted" / f"{project.get_case(case_id).id}.json"


def _compute_checksum(label: LabelArray) -> int:
    return zlib.crc32(np.ascontiguousarray(label).data)
