"""What the prediction that is shown is, in words."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.predictions.source_text import describe_source, describe_stage
from napari_dycon.application.predictions.status import PredictionStatus
from napari_dycon.project.prediction_store import PredictionStage
from napari_dycon.project.store import Project


@pytest.fixture
def case(project: Project) -> ActiveCase:
    image = project.read_image("scan-1")
    empty = np.zeros(image.shape, np.uint8)
    return ActiveCase("scan-1", image, empty, run="002-dycon", prediction=empty)


@pytest.mark.parametrize(
    ("stage", "training", "newest", "text"),
    [
        ("complete", None, "002-dycon", "Prediction of run 002-dycon for scan-1."),
        ("complete", "003-dycon", "002-dycon", "Prediction of run 002-dycon for scan-1."),
        ("complete", None, "003-dycon", "Older prediction: run 002-dycon; newest: run 003-dycon."),
        ("preview", "002-dycon", None, "Preview during training (run 002-dycon)."),
        (
            "preview",
            None,
            "002-dycon",
            "Preview during training (run 002-dycon), not a finished prediction.",
        ),
        ("preliminary", None, None, "Preliminary prediction of run 002-dycon, not refined."),
    ],
)
def test_the_source_in_words(
    case: ActiveCase, stage: PredictionStage, training: str | None, newest: str | None, text: str
) -> None:
    case.stage = stage
    assert describe_source(case, None, training=training, newest=newest) == text
    assert bool(describe_stage(case)) == (stage != "complete")


def test_a_preliminary_prediction_is_refined_by_its_own_run_only(case: ActiveCase) -> None:
    case.stage = "preliminary"
    status = PredictionStatus("002-dycon", ("scan-1",), preliminary=("scan-1",))
    assert describe_source(case, status) == "Preliminary prediction; refining…"
    other = PredictionStatus("001-dycon", ("scan-1",), preliminary=("scan-1",))
    assert "not refined" in describe_source(case, other)


def test_without_case_or_prediction(case: ActiveCase) -> None:
    assert describe_source(None, None) == "No case selected."
    case.prediction = None
    assert describe_source(case, None) == "scan-1 has no prediction yet."
    assert describe_stage(case) == ""
    case.is_prediction_pending = True
    assert describe_source(case, None) == "Reading the prediction of scan-1…"
