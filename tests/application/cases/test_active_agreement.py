"""Volumes and agreement follow the edits of the active label."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dycon.application.cases.active_agreement import ActiveAgreement
from napari_dycon.engine.evaluation.label_comparison import count_label_values
from napari_dycon.project.store import Project
from napari_dycon.session import Session


def test_volumes_follow_edits_and_cases(project: Project) -> None:
    session = Session()
    session.open_project(project.path)
    active = ActiveAgreement(session.state, session.task_runner)
    seen: list[dict[int, float]] = []
    active.changed.connect(lambda: seen.append(active.volumes_ml))
    session.show_case("scan-0")
    case = session.require_case()
    voxel_ml = np.prod(case.image.spacing_mm) / 1000
    assert active.volumes_ml[1] == pytest.approx(512 * voxel_ml)
    case.label[0, 0, :5] = 1  # painted; known once it is saved
    session.flush()
    assert active.volumes_ml[1] == pytest.approx(517 * voxel_ml)
    session.fill_background()
    session.show_case("scan-4")
    assert 1 not in active.volumes_ml
    assert seen[-1] == active.volumes_ml
    assert active.get_agreement(session.require_case()) is active.agreement is not None
    assert active.get_agreement(case) is None
    session.close_project()
    assert active.agreement is None
    assert active.volumes_ml == {}


def test_values_are_counted() -> None:
    label = np.random.default_rng(0).integers(0, 256, (5, 7, 11), np.uint8)
    assert np.array_equal(count_label_values(label), np.bincount(label.ravel(), minlength=256))
