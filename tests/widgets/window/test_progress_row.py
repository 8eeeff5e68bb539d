"""The progress row: text, bar and Cancel of what runs, in every tab and in the activity dock."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.nifti_files import save_nifti
from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication, QPushButton

from napari_dycon.application.training.status import RunStatus
from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.store import Project
from napari_dycon.widgets.background import activity_display
from napari_dycon.widgets.background.task_runner import NapariTaskRunner

pytestmark = pytest.mark.gui


@pytest.fixture
def shown_panel(example_panel: Any) -> Any:
    """Panel of a window on a project with scan-3 in view."""
    return example_panel[1]


class SlowTask:
    """A task that waits for permission before each of its parts."""

    def __init__(self, parts: int = 4) -> None:
        self.parts = parts
        self.done: list[int] = []
        self._permits = threading.Semaphore(0)

    def allow(self, count: int = 1) -> None:
        for _ in range(count):
            self._permits.release()

    def __call__(self, progress: ItemProgressCallback) -> str:
        for part in range(1, self.parts + 1):
            self._permits.acquire(timeout=60)
            self.done.append(part)
            progress(part, self.parts, f"part {part}")
        return "result"


@pytest.fixture(autouse=True)
def delay_ms(monkeypatch: pytest.MonkeyPatch) -> int:
    """Show tasks as soon as Qt handles its events; returns the real delay."""
    delay = activity_display.SHOW_AFTER_MS
    monkeypatch.setattr(activity_display, "SHOW_AFTER_MS", 0)
    return delay


def start(panel: Any, task: SlowTask, **options: Any) -> list[str]:
    """Start a task in the window; returns the list that its end is written to."""
    ends: list[str] = []
    panel.task_runner.submit_with_progress(
        "Exporting",
        task,
        ends.append,
        lambda error: ends.append(str(error)),
        on_cancel=lambda: ends.append("canceled"),
        **options,
    )
    QApplication.processEvents()
    return ends


def test_a_task_shows_its_progress_in_the_panel_and_in_the_dock(
    shown_panel: Any, qtbot: Any
) -> None:
    row, task = shown_panel.progress_row, SlowTask()
    assert not row.stop_button.isVisible()
    ends = start(shown_panel, task)
    assert row.label.text() == "Exporting…"
    assert row.bar.value() == 0
    task.allow(2)
    qtbot.waitUntil(lambda: row.label.text() == "Exporting: part 2", timeout=30_000)
    assert row.bar.value() / row.bar.maximum() == 0.5
    (bar,) = shown_panel.task_runner.bars.shown
    assert bar.desc.startswith("Exporting: part 2")
    assert bar.n == bar.total / 2
    task.allow(2)
    qtbot.waitUntil(lambda: ends == ["result"], timeout=30_000)
    assert not row.stop_button.isVisible()
    assert not shown_panel.task_runner.bars.shown


def test_a_task_that_ends_soon_is_not_shown(
    shown_panel: Any, qtbot: Any, delay_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window would flicker, as when another case is shown."""
    monkeypatch.setattr(activity_display, "SHOW_AFTER_MS", delay_ms)
    shown: list[bool] = []
    activities = shown_panel.task_runner.activities
    activities.changed.connect(lambda: shown.append(bool(activities.running)))
    task = SlowTask(1)
    task.allow()
    ends = start(shown_panel, task)
    qtbot.waitUntil(lambda: ends == ["result"], timeout=30_000)
    qtbot.wait(2 * delay_ms)
    assert not shown
    slow = SlowTask(1)
    ends = start(shown_panel, slow)
    qtbot.waitUntil(lambda: True in shown, timeout=30_000)
    slow.allow()
    qtbot.waitUntil(lambda: ends == ["result"], timeout=30_000)
    assert not activities.running


def test_a_task_without_known_progress_does_not_draw_the_views_again(
    shown_panel: Any, qtbot: Any
) -> None:
    """The training needs the processor."""
    row, task = shown_panel.progress_row, SlowTask(1)
    ends = start(shown_panel, task)
    qtbot.wait(500)  # the bar appears in the dock
    assert row.label.text() == "Exporting…"
    window, drawn = shown_panel.window(), DrawCounter()
    window.installEventFilter(drawn)
    qtbot.wait(1000)
    window.removeEventFilter(drawn)
    task.allow()
    qtbot.waitUntil(lambda: ends == ["result"], timeout=30_000)
    assert drawn.count < 10


@pytest.mark.parametrize("is_docked", [True, False])
def test_a_closed_window_shows_no_task_any_more(qapp: Any, qtbot: Any, is_docked: bool) -> None:
    """Its panel may be gone while a scan is still being read."""
    runner, task = NapariTaskRunner(), SlowTask(1)
    runner.submit_with_progress("Reading", task, print, print, is_docked=is_docked)
    qtbot.waitUntil(lambda: bool(runner.activities.running), timeout=20_000)
    runner.close()
    changes: list[None] = []
    runner.activities.changed.connect(lambda: changes.append(None))
    qtbot.wait(4 * activity_display.POLL_MS)
    task.allow()
    qtbot.waitUntil(lambda: runner.is_idle, timeout=20_000)
    assert not changes


class DrawCounter(QObject):
    """Counts how often a window is drawn."""

    count = 0

    def eventFilter(self, _: Any, event: Any) -> bool:  # noqa: N802 (of Qt)
        self.count += event.type() == QEvent.Type.UpdateRequest
        return False


def test_canceling_a_task_that_writes_ends_it_at_its_next_part(
    shown_panel: Any, qtbot: Any
) -> None:
    row, task = shown_panel.progress_row, SlowTask()
    ends = start(shown_panel, task)
    row.stop_button.click()
    assert "canceling" in row.label.text()
    assert not row.stop_button.isEnabled()
    task.allow()
    qtbot.waitUntil(lambda: ends == ["canceled"], timeout=30_000)
    assert task.done == [1]


def test_a_task_that_is_over_before_it_noticed_the_cancel_counts_as_done(
    shown_panel: Any, qtbot: Any
) -> None:
    """What was written must be told."""
    release = threading.Event()
    ends: list[str] = []

    def write(_: ItemProgressCallback) -> str:
        release.wait(10)
        return "written"

    shown_panel.task_runner.submit_with_progress(
        "Writing", write, ends.append, print, on_cancel=lambda: ends.append("canceled")
    )
    QApplication.processEvents()
    shown_panel.progress_row.stop_button.click()
    release.set()
    qtbot.waitUntil(lambda: ends == ["written"], timeout=30_000)


def test_canceling_a_pure_task_answers_at_once_and_drops_its_result(
    shown_panel: Any, qtbot: Any
) -> None:
    task = SlowTask(1)
    ends = start(shown_panel, task, drop_result=True)
    shown_panel.progress_row.stop_button.click()
    assert ends == ["canceled"]
    assert not shown_panel.progress_row.stop_button.isVisible()
    task.allow()
    qtbot.waitUntil(lambda: shown_panel.task_runner.is_idle, timeout=30_000)
    assert ends == ["canceled"]


def test_the_activity_dock_can_cancel(shown_panel: Any, qtbot: Any) -> None:
    task = SlowTask(1)
    ends = start(shown_panel, task, drop_result=True)
    window = shown_panel.window()

    def find_dock_buttons() -> list[QPushButton]:
        buttons = [b for b in window.findChildren(QPushButton) if b.text() == "Cancel"]
        return [button for button in buttons if not shown_panel.isAncestorOf(button)]

    qtbot.waitUntil(lambda: len(find_dock_buttons()) == 1, timeout=30_000)
    find_dock_buttons()[0].click()
    qtbot.waitUntil(lambda: ends == ["canceled"], timeout=30_000)
    task.allow()
    qtbot.waitUntil(lambda: shown_panel.task_runner.is_idle, timeout=30_000)


def test_nothing_moves_when_a_task_starts_or_a_training_runs(shown_panel: Any, qtbot: Any) -> None:
    panel, task = shown_panel, SlowTask(1)

    def positions() -> list[Any]:
        widgets = (panel.tabs, panel.message_label, panel.progress_row)
        return [widget.geometry() for widget in widgets]

    qtbot.wait(100)
    before = positions()
    ends = start(panel, task)
    qtbot.wait(100)
    assert positions() == before
    state = panel.session.state
    state.set_run_status(RunStatus("training", "001-dycon", 0.42, 170.0, text="Training"))
    qtbot.wait(100)
    assert positions() == before
    assert panel.progress_row.label.text().endswith("· training 42%")
    task.allow()
    qtbot.waitUntil(lambda: ends == ["result"], timeout=30_000)
    assert panel.progress_row.label.text() == "Training, about 3 min left"
    assert panel.progress_row.stop_button.text() == "Stop"
    for index in range(panel.tabs.count()):
        panel.tabs.setCurrentIndex(index)
        assert panel.progress_row.label.isVisible()
        assert panel.progress_row.pause_button.isVisible()
    state.set_run_status(RunStatus("stopping", "001-dycon", 0.42, text="Stopping…"))
    assert not panel.progress_row.stop_button.isEnabled()
    state.set_run_status(RunStatus())
    assert not panel.progress_row.label.isVisible()
    assert positions() == before


@pytest.fixture
def large_project(tmp_path: Path) -> Project:
    """Project of one scan that is large enough for interpolation to take seconds."""
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, (72, 320, 320)).astype(np.int16)
    save_nifti(tmp_path / "images" / "large.nii.gz", image)
    return create_project(tmp_path / "project", tmp_path / "images", classes=["atrium"])


def test_canceling_an_interpolation_leaves_the_label_unchanged(
    shared_window: Any, large_project: Project, qtbot: Any
) -> None:
    _, panel = shared_window
    session = panel.session
    session.open_project(large_project.path)
    qtbot.waitUntil(lambda: session.project is not None, timeout=20_000)
    session.show_case("large")
    qtbot.waitUntil(lambda: session.case is not None, timeout=20_000)
    label = session.case.label
    axis = int(np.argmin(label.shape))
    slices = np.moveaxis(label, axis, 0)
    slices[2, 20:300, 20:300] = slices[-3, 20:300, 20:300] = 1
    before = label.copy()
    row = panel.progress_row
    session.annotation.fill_between([1], axis, refine_to_edges=True)
    qtbot.waitUntil(lambda: "slices: " in row.label.text(), timeout=20_000)
    assert 0 <= row.bar.value() < row.bar.maximum()
    row.stop_button.click()
    assert session.annotation.operation == ""
    assert panel.message_label.text() == "Canceled; the label is unchanged."
    qtbot.waitUntil(lambda: panel.task_runner.is_idle, timeout=60_000)
    qtbot.wait(100)
    assert np.array_equal(session.case.label, before)
    session.annotation.fill_between([1], axis)  # can be used again
    qtbot.waitUntil(lambda: "Filled" in panel.message_label.text(), timeout=60_000)
    assert "atrium now" in panel.message_label.text()


def test_a_canceled_new_project_leaves_nothing_behind(
    shared_window: Any, tmp_path: Path, qtbot: Any
) -> None:
    for number in range(12):
        voxels = np.random.default_rng(number).normal(size=(30, 160, 160)).astype(np.float32)
        save_nifti(tmp_path / "scans" / f"scan-{number}.nii.gz", voxels)
    _, panel = shared_window
    activities = panel.task_runner.activities

    def cancel() -> None:
        """Press Cancel as soon as the task is shown."""
        activities.changed.disconnect(cancel)
        panel.progress_row.stop_button.click()

    activities.changed.connect(cancel)
    panel.session.create_project(tmp_path / "new", tmp_path / "scans")
    qtbot.waitUntil(lambda: "No project was created" in panel.message_label.text(), timeout=60_000)
    assert panel.session.project is None
    assert not (tmp_path / "new").exists()


def test_a_canceled_export_can_be_repeated(
    shown_panel: Any, project: Project, tmp_path: Path, qtbot: Any
) -> None:
    session = shown_panel.session
    session.export("nifti", tmp_path / "out")
    QApplication.processEvents()
    if shown_panel.task_runner.activities.running:  # it may already be over
        shown_panel.progress_row.stop_button.click()
    qtbot.waitUntil(lambda: not session.import_export.is_exporting, timeout=20_000)
    text = shown_panel.message_label.text()
    assert "Canceled" in text or "Exported" in text
    session.export("nifti", tmp_path / "again")
    qtbot.waitUntil(lambda: (tmp_path / "again").is_dir(), timeout=20_000)
    qtbot.waitUntil(lambda: not session.import_export.is_exporting, timeout=20_000)
