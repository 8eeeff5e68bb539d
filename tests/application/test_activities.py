"""Background tasks as the user sees them."""

from __future__ import annotations

import pytest

from napari_dycon.application.activities import Activities, Activity
from napari_dycon.core.durations import format_duration, format_remaining
from napari_dycon.errors import CancelledError, DyconError


def test_a_task_tells_its_item_and_the_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("napari_dycon.application.activities.time.monotonic", lambda: now[0])
    activity = Activity("Interpolating slices")
    assert (activity.text, activity.fraction) == ("Interpolating slices…", None)
    now[0] += 1.0
    activity.report(9, 36, "slice 9 of 36")
    assert activity.text == "Interpolating slices: slice 9 of 36"  # too early for an estimate
    now[0] += 19.0
    assert activity.fraction == 0.25
    assert activity.text == "Interpolating slices: slice 9 of 36, about 60 s left"


def test_a_canceled_task_ends_at_its_next_report() -> None:
    activity = Activity("Exporting", can_cancel=True)
    requested: list[bool] = []
    activity.on_cancel_requested = lambda: requested.append(True)
    activity.report(1, 4, "scan-1")
    activity.cancel()
    activity.cancel()
    assert requested == [True]
    assert activity.text == "Exporting: canceling…"
    with pytest.raises(CancelledError):
        activity.report(2, 4, "scan-2")
    assert not issubclass(CancelledError, DyconError)  # no code that skips bad scans catches it


def test_a_task_that_cannot_be_canceled_goes_on() -> None:
    activity = Activity("Saving")
    activity.cancel()
    activity.report(1, 2, "scan")
    assert not activity.is_canceled


def test_the_list_of_tasks_tells_every_change() -> None:
    running, n_changes = Activities(), []
    running.changed.connect(lambda: n_changes.append(len(running.running)))
    activity = Activity("Exporting")
    running.add(activity)
    running.remove(activity)
    running.remove(activity)
    assert n_changes == [1, 0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (2.0, "a few seconds left"),
        (13.0, "about 15 s left"),
        (58.0, "about 60 s left"),
        (170.0, "about 3 min left"),
        (3900.0, "about 1 h 5 min left"),
    ],
)
def test_remaining_times_are_rounded(seconds: float | None, text: str) -> None:
    assert format_remaining(seconds) == text
    assert format_duration(45.2) == "45 s"
