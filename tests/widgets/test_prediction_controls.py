"""The Review tab shows what a prediction is doing, and cancels it."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.tiny_runs import TINY

from napari_dycon.application.predictions.status import PredictionStatus
from napari_dycon.engine.config import make_config
from napari_dycon.engine.training.run import train
from napari_dycon.project.runs.events import PredictionProgressEvent

pytestmark = pytest.mark.gui


def test_a_prediction_is_shown_from_the_click_to_its_result(
    window: Any, project: Any, qtbot: Any
) -> None:
    settings = TINY | {"steps": 2, "atlas.weight": 0.4, "atlas.templates": 2}
    list(train(project, make_config("dycon", **settings)))
    _, panel = window()
    session = panel.session
    messages: list[str] = []
    session.message.connect(lambda _, text: messages.append(text))
    session.open_project(project.path)
    qtbot.waitUntil(lambda: session.project is not None, timeout=20_000)
    session.show_case("scan-4")
    qtbot.waitUntil(lambda: session.case is not None, timeout=20_000)
    panel.tabs.setCurrentIndex(2)
    controls = panel.review.prediction_controls
    assert controls.predict_button.isEnabled()
    assert not controls.cancel_button.isVisible()
    size = controls.sizeHint()

    controls.predict_button.click()
    assert controls.status_label.text() == "Loading the network of run 001-dycon…"
    assert controls.cancel_button.isVisible()
    assert (controls.bar.minimum(), controls.bar.maximum()) == (0, 0)  # busy
    assert not controls.predict_button.isEnabled()
    assert controls.sizeHint() == size  # nothing moves
    qtbot.waitUntil(
        lambda: session.case.is_preliminary and session.case.prediction is not None,
        timeout=120_000,
    )
    assert "reliminary prediction" in panel.review.source_label.text()
    qtbot.waitUntil(
        lambda: any(t.startswith("Predicted scan-4 in") for t in messages), timeout=120_000
    )
    qtbot.waitUntil(lambda: not session.case.is_preliminary, timeout=20_000)
    assert controls.status_label.text() == ""
    assert not controls.cancel_button.isVisible()
    assert controls.predict_button.isEnabled()
    assert panel.review.source_label.text() == "Prediction of run 001-dycon for scan-4."

    messages.clear()
    controls.predict_all_button.click()
    controls.cancel_button.click()
    assert controls.status_label.text() == "Canceling…"
    assert not controls.cancel_button.isEnabled()
    qtbot.waitUntil(lambda: any("canceled" in text for text in messages), timeout=20_000)
    assert controls.predict_all_button.isEnabled()


def test_the_bar_and_the_text_follow_the_progress(opened_panel: Any) -> None:
    _, panel = opened_panel
    controls = panel.review.prediction_controls
    event = PredictionProgressEvent(
        phase="predicting", case="a\u202eb", done=1, total=4, progress=0.25, remaining_s=30.0
    )
    status = PredictionStatus("001-dycon", ("a\u202eb", "b", "c", "d"), progress=event)
    controls.predictions.status_changed.emit(status)
    assert controls.bar.value() == 250
    assert controls.status_label.text() == "Predicting a\\u202eb (2 of 4), about 30 s left"
    controls.predictions.status_changed.emit(None)
    assert controls.status_label.text() == ""


def test_the_size_and_the_uncertainty_of_a_region_are_shown(opened_panel: Any) -> None:
    _, panel = opened_panel
    label = panel.review.hotspot_label
    assert label.text() == "2 uncertain regions, 0 viewed"
    panel.review.next_uncertain_region()
    assert label.text().startswith("Region 1 of 2: ")
    assert label.text().endswith(", uncertainty 0.90")
