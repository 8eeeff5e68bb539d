"""The Review tab shows what a prediction is doing, and cancels it."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.tiny_runs import TINY

from napari_dycon.engine.config import make_config
from napari_dycon.engine.training.run import train

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
    controls, row = panel.review.prediction_controls, panel.progress_row
    assert controls.predict_button.isEnabled()
    assert not row.stop_button.isVisible()

    controls.predict_button.click()
    assert row.label.text() == "Loading the network of run 001-dycon…"
    assert row.stop_button.isVisible()
    assert row.stop_button.text() == "Cancel"
    assert row.bar.value() == 0
    assert not controls.predict_button.isEnabled()
    texts: set[str] = set()
    activities = panel.task_runner.activities
    activities.changed.connect(lambda: texts.update(a.text for a in activities.running))
    qtbot.waitUntil(
        lambda: session.case.is_preliminary and session.case.prediction is not None,
        timeout=120_000,
    )
    assert "reliminary prediction" in panel.review.source_label.text()
    qtbot.waitUntil(
        lambda: any(t.startswith("Prediction of scan-4 updated in") for t in messages),
        timeout=120_000,
    )
    qtbot.waitUntil(lambda: not session.case.is_preliminary, timeout=20_000)
    assert texts  # names of phases; those of fast ones may be missing
    qtbot.waitUntil(lambda: not row.stop_button.isVisible(), timeout=20_000)
    assert controls.predict_button.isEnabled()
    assert panel.review.source_label.text() == "Prediction of run 001-dycon for scan-4."

    messages.clear()
    controls.predict_all_button.click()
    row.stop_button.click()
    assert "cancel" in row.label.text().lower()
    assert not row.stop_button.isEnabled()
    qtbot.waitUntil(lambda: any("canceled" in text for text in messages), timeout=20_000)
    assert controls.predict_all_button.isEnabled()


def test_the_size_and_the_uncertainty_of_a_region_are_shown(example_panel: Any) -> None:
    _, panel = example_panel
    label = panel.review.hotspot_label
    assert label.text() == "2 uncertain regions, 0 viewed"
    panel.review.next_uncertain_region()
    assert label.text().startswith("Region 1 of 2: ")
    assert label.text().endswith(", uncertainty 0.90")
