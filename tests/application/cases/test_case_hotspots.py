"""Uncertain regions obey the value from which the uncertainty is shown."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dycon.application.cases.case_hotspots import find_shown_threshold
from napari_dycon.project.store import Project
from napari_dycon.session import Session

CASE = "scan-3"


def write_prediction(project: Project, background: float) -> None:
    """Write a prediction with a region of 0.9, one of 0.6, and an even rest."""
    run = project.runs.create("dycon", {})
    uncertainty = np.full(project.read_image(CASE).shape, background, np.float32)
    uncertainty[4:7, 4:7, 4:7] = 0.9
    uncertainty[14:17, 14:17, 14:17] = 0.6
    mask = np.zeros(uncertainty.shape, np.uint8)
    project.predictions.write(run.id, CASE, mask, uncertainty, uncertainty)


@pytest.fixture
def session(project: Project) -> Session:
    session = Session()
    session.open_project(project.path)
    return session


def list_regions(session: Session) -> list[float]:
    """Mean uncertainty of each region."""
    return [round(spot.mean_uncertainty, 2) for spot in session.require_case().hotspots]


def test_regions_below_the_threshold_are_left_out_and_come_back(
    session: Session, project: Project
) -> None:
    write_prediction(project, 0.0)
    session.show_case(CASE)
    changed: list[bool] = []
    session.state.hotspots_changed.connect(lambda: changed.append(True))
    assert list_regions(session) == [0.9, 0.6]
    session.next_uncertain()
    session.review.set_threshold(0.7)
    assert list_regions(session) == [0.9]
    assert session.review.current_hotspot is None  # the numbers are others now
    session.review.set_threshold(0.95)
    assert list_regions(session) == []
    assert session.next_uncertain() is None
    session.review.set_threshold(0.1)  # noise is no region, whatever the threshold
    assert list_regions(session) == [0.9, 0.6]
    assert len(changed) == 3


def test_the_threshold_holds_for_the_next_case_and_prediction(
    session: Session, project: Project
) -> None:
    write_prediction(project, 0.0)
    session.review.set_threshold(0.7)
    session.show_case(CASE)
    assert list_regions(session) == [0.9]
    write_prediction(project, 0.05)
    session.refresh_prediction(CASE)
    assert list_regions(session) == [0.9]


def test_a_raised_threshold_holds_for_regions_too(session: Session, project: Project) -> None:
    write_prediction(project, 0.0)
    session.show_case(CASE)
    case = session.require_case()
    assert case.uncertainty is not None
    case.display_thresholds = {"uncertainty": 0.7}  # as if a tenth of the scan were above
    assert find_shown_threshold(case, 0.3) == 0.7
    session.review.set_threshold(0.31)
    assert list_regions(session) == [0.9]
