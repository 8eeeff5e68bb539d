"""Changes in the Preferences act on the open window, as those in its own controls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from napari_dycon.application.training.status import RunStatus
from napari_dycon.widgets.window.preferences import PreferenceFollower, get_preferences

pytestmark = pytest.mark.gui
GROUPS = ("annotate", "review", "train", "views")


@pytest.fixture
def settings() -> Iterator[Any]:
    settings = get_preferences()
    before = {group: getattr(settings, group).model_dump() for group in GROUPS}
    yield settings
    for group, values in before.items():
        getattr(settings, group).update(values)


@pytest.fixture
def panel(window: Callable[[], Any], settings: Any) -> Any:
    _, panel = window()
    return panel


def test_single_settings_act_at_once(panel: Any, settings: Any) -> None:
    settings.annotate.brush_mm = 3.0
    assert panel.annotate.brush.diameter.value() == 3.0
    assert panel.layers.brush_mm == 3.0
    settings.review.show_above = 0.5
    assert panel.layers.overlays.threshold == 0.5
    settings.train.minutes = 25
    assert panel.train.minutes.value() == 25
    views, shown = panel.canvas_area.views, panel.canvas_area.views.has_side_views
    settings.views.side_views = not settings.views.side_views
    assert views.has_side_views == settings.views.side_views
    views.show_side_views(shown)


def test_the_dialog_changes_groups_and_takes_them_back(panel: Any, settings: Any) -> None:
    before = settings.model_dump()
    settings.annotate.update({"brush_mm": 4.0, "grow_margin_mm": 30.0})  # as its forms do
    assert panel.layers.brush_mm == 4.0
    settings.update(before)  # Cancel
    assert panel.layers.brush_mm == before["annotate"]["brush_mm"]
    settings.train.update({"minutes": 33})
    assert panel.train.minutes.value() == 33
    settings.reset()  # Restore defaults
    assert panel.train.minutes.value() == 10


def test_what_was_chosen_in_the_window_stays(panel: Any, settings: Any) -> None:
    panel.annotate.brush.diameter.setValue(9.0)
    settings.train.minutes = 12
    assert panel.annotate.brush.diameter.value() == 9.0


def test_a_running_training_keeps_its_time(panel: Any, settings: Any) -> None:
    minutes = panel.train.minutes.value()
    panel.session.state.set_run_status(RunStatus("training", "001-dycon", text="Training"))
    settings.train.minutes = minutes + 5
    assert panel.train.minutes.value() == minutes
    panel.session.state.set_run_status(RunStatus())


def test_a_closed_window_no_longer_follows(settings: Any) -> None:
    applied: list[object] = []
    follower = PreferenceFollower({"train.minutes": applied.append})
    settings.train.minutes = 17
    follower.close()
    settings.train.minutes = 18
    assert applied == [17]
