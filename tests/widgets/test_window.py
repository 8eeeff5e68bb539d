"""The complete workflow in the real window, with the real engine process, on real scans."""

from __future__ import annotations

import faulthandler
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_dycon.application.task_runner import Progress
from napari_dycon.engine.config import make_config
from napari_dycon.project.runs.events import Event, IdleEvent, StepEvent
from napari_dycon.project.store import Project
from napari_dycon.widgets.background.task_runner import MAX_THREADS

pytestmark = pytest.mark.gui
ROLES = {"image", "label", "prediction", "uncertainty", "disagreement"}
SMALL = {
    "device": "cpu",
    "batch.patch_size": [16, 24, 16],
    "network.filters": [4, 8, 16],
    "steps": 100_000,
    "batch.labeled_size": 1,
    "batch.unlabeled_size": 1,
    "intervals.preview_s": 2.0,
}


def collect_layers_by_role(viewer: Any) -> dict[str, Any]:
    return {
        layer.metadata["napari_dycon"]["role"]: layer
        for layer in viewer.layers
        if "napari_dycon" in layer.metadata
    }


@pytest.fixture
def hippocampus_project(real_data: Callable[[str], Path], tmp_path: Path) -> Path:
    """Ten real scans, labels of the first two."""
    source = real_data("hippocampus")
    for number, file in enumerate(sorted((source / "images").iterdir())[:10]):
        for folder in ("images", "labels")[: 2 if number < 2 else 1]:
            (tmp_path / folder).mkdir(exist_ok=True)
            shutil.copyfile(source / folder / file.name, tmp_path / folder / file.name)
    return tmp_path


def test_open_paint_train_accept_reopen(
    # First: napari's window cannot be removed if a later fixture skips the test.
    hippocampus_project: Path,
    window: Callable[[], Any],
    qtbot: Any,
    save_screenshot: Callable[[Any, str], None],
) -> None:
    viewer, panel = window()
    session = panel.session
    save_screenshot(viewer, "empty")
    session.create_project(
        hippocampus_project / "project",
        hippocampus_project / "images",
        hippocampus_project / "labels",
        ["anterior", "posterior"],
    )
    qtbot.waitUntil(lambda: session.project is not None, timeout=20_000)
    ids = [case.id for case in session.project.cases]
    assert panel.data.case_list.topLevelItemCount() == 10

    # Show: a click on a case brings its registered layers.
    panel.data.case_list.itemClicked.emit(panel.data.case_list.topLevelItem(4), 0)
    shown = ids[4]
    qtbot.waitUntil(lambda: session.case is not None and session.case.id == shown, timeout=20_000)
    assert set(collect_layers_by_role(viewer)) == {"image", "label"}

    # Paint with napari's brush; the label saves itself, undo is napari's own.
    label = collect_layers_by_role(viewer)["label"]
    panel.annotate.brush.paint_button.click()
    assert (label.mode, label.selected_label) == ("paint", 1)
    middle = tuple(n // 2 for n in session.case.image.shape)
    with qtbot.waitSignal(panel_signal(session.label_saved, qtbot), timeout=5_000):
        label.paint(middle, 1)
    assert session.project.labels.read(shown)[middle] == 1
    assert session.project.get_case(shown).status == "in_progress"
    label.paint((2, 2, 2), 2)
    label.undo()
    assert session.case.label[2, 2, 2] == 255
    viewer.dims.point = tuple(
        m * s for m, s in zip(middle, session.case.image.spacing_mm, strict=True)
    )
    panel.annotate.completion.slice_button.click()
    assert (session.case.label[middle[0]] != 255).all()
    assert (session.case.label[middle[0] + 1] == 255).all()
    save_screenshot(viewer, "annotate")

    # Train: the preview appears while training runs.
    panel.tabs.setCurrentIndex(1)
    seen: list[Event] = []
    session.event.connect(seen.append)
    run = session.start_training(make_config("dycon", **SMALL))
    assert not panel.train.start_button.isEnabled()
    assert "is running" in panel.train.start_button.toolTip()
    previewed = ROLES - {"disagreement"}  # of one network there is none
    qtbot.waitUntil(lambda: set(collect_layers_by_role(viewer)) == previewed, timeout=90_000)
    assert session.case.is_preview
    assert collect_layers_by_role(viewer)["prediction"].name.endswith("(preview during training)")
    assert session.status.phase == "training"
    save_screenshot(viewer, "train")
    session.pause()
    qtbot.waitUntil(lambda: session.status.phase == "paused", timeout=30_000)
    assert panel.progress_row.pause_button.text() == "Resume"
    session.resume()
    qtbot.waitUntil(lambda: session.status.phase == "training", timeout=30_000)
    panel.progress_row.stop_button.click()
    qtbot.waitUntil(lambda: session.status.phase == "idle", timeout=60_000)
    assert seen[-1].event == "stopped"
    assert panel.train.start_button.isEnabled()
    assert len(panel.train.curves.points["loss"][0]) > 0

    # Review: every layer lies over the others, in millimeters.
    panel.tabs.setCurrentIndex(2)
    for layer in collect_layers_by_role(viewer).values():
        assert np.array_equal(layer.extent.world, label.extent.world)
        assert np.allclose(layer.scale, session.case.image.spacing_mm)
        assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
        assert layer.metadata["napari_dycon"]["case"] == shown
    panel.review.toggles["uncertainty"].setChecked(False)
    assert not collect_layers_by_role(viewer)["uncertainty"].visible
    panel.review.toggles["uncertainty"].setChecked(True)
    before = session.case.label.copy()
    panel.review.accept_button.click()
    assert np.array_equal(session.case.label, session.case.prediction)
    qtbot.waitUntil(lambda: session.project.get_case(shown).status == "labeled", timeout=20_000)
    label.undo()
    assert np.array_equal(session.case.label, before)
    label.redo()
    save_screenshot(viewer, "review-dark")
    viewer.theme = "light"
    save_screenshot(viewer, "review-light")
    accepted = session.case.prediction.copy()
    panel.release()

    # Reopen: everything is still there.
    viewer, panel = window()
    session = panel.session
    session.open_project(hippocampus_project / "project")
    qtbot.waitUntil(lambda: session.project is not None, timeout=20_000)
    assert session.project.get_case(shown).status == "labeled"
    assert session.project.runs.get().id == run
    session.show_case(shown)
    qtbot.waitUntil(lambda: set(collect_layers_by_role(viewer)) == previewed, timeout=20_000)
    assert session.case.is_preview  # nothing else was predicted
    assert np.array_equal(session.case.label, accepted)


def test_errors_are_notifications_and_buttons_stay_usable(
    shared_window: Any, scans: Path, tmp_path: Path, qtbot: Any
) -> None:
    _, panel = shared_window
    session = panel.session
    reported: list[tuple[str, str]] = []
    session.message.connect(lambda level, text: reported.append((level, text)))
    session.open_project(tmp_path / "nowhere")
    qtbot.waitUntil(lambda: len(reported) == 1, timeout=20_000)
    assert reported[0][0] == "error"
    assert "does not exist" in reported[0][1]
    assert panel.data.open_button.isEnabled()
    assert not panel.train.start_button.isEnabled()
    assert "open a project first" in panel.train.start_button.toolTip()

    session.create_project(tmp_path / "p", scans / "images")
    qtbot.waitUntil(lambda: session.project is not None, timeout=20_000)
    assert "no case is labeled yet" in panel.train.start_button.toolTip()
    panel.train.start_button.setEnabled(True)
    panel.train.start_button.click()
    assert "No case is labeled yet" in reported[-1][1]
    assert session.status.phase == "idle"


def test_a_label_survives_switching_and_removing_its_layer(
    shared_window: Any, project: Project, qtbot: Any
) -> None:
    viewer, panel = shared_window
    session = panel.session
    session.open_project(project.path)
    qtbot.waitUntil(lambda: session.project is not None, timeout=20_000)
    session.show_case("scan-3")
    qtbot.waitUntil(lambda: session.case is not None, timeout=20_000)
    collect_layers_by_role(viewer)["label"].paint((5, 5, 5), 1)
    session.show_case("scan-4")
    assert project.labels.read("scan-3")[5, 5, 5] == 1
    qtbot.waitUntil(lambda: session.case.id == "scan-4", timeout=20_000)
    label = collect_layers_by_role(viewer)["label"]
    label.paint((6, 6, 6), 1)
    viewer.layers.remove(label)
    qtbot.waitUntil(lambda: project.labels.read("scan-4") is not None, timeout=20_000)
    assert project.labels.read("scan-4")[6, 6, 6] == 1


def test_closing_the_window_saves_the_last_stroke(
    window: Callable[[], Any], project: Project, qtbot: Any
) -> None:
    viewer, panel = window()
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    panel.session.show_case("scan-3")
    qtbot.waitUntil(lambda: "label" in collect_layers_by_role(viewer), timeout=20_000)
    collect_layers_by_role(viewer)["label"].paint((5, 5, 5), 1)
    viewer.close()
    assert project.labels.read("scan-3")[5, 5, 5] == 1


def shown_case(opened: Any, project: Project, qtbot: Any) -> tuple[Any, Any]:
    viewer, panel = opened
    panel.session.open_project(project.path)
    qtbot.waitUntil(lambda: panel.session.project is not None, timeout=20_000)
    panel.session.show_case("scan-3")
    qtbot.waitUntil(lambda: "label" in collect_layers_by_role(viewer), timeout=20_000)
    return viewer, panel


def test_a_canceled_close_keeps_the_panel_usable(
    window: Callable[[], Any], project: Project, qtbot: Any
) -> None:
    from qtpy.QtCore import QEvent, QObject

    viewer, panel = shown_case(window(), project, qtbot)

    class Cancel(QObject):
        def eventFilter(self, _: Any, event: Any) -> bool:  # noqa: N802 (Qt's name)
            if event.type() != QEvent.Type.Close:
                return False
            event.ignore()
            return True

    main, cancel = panel._close_handler.main_window, Cancel()
    main.removeEventFilter(panel._close_handler)
    main.installEventFilter(cancel)
    main.installEventFilter(panel._close_handler)  # the last one is asked first
    collect_layers_by_role(viewer)["label"].paint((5, 5, 5), 1)
    main.close()
    assert main.isVisible()
    assert project.labels.read("scan-3")[5, 5, 5] == 1
    collect_layers_by_role(viewer)["label"].paint((9, 9, 9), 1)
    qtbot.waitUntil(lambda: project.labels.read("scan-3")[9, 9, 9] == 1, timeout=5_000)
    main.removeEventFilter(cancel)


def test_closing_the_panel_saves_and_removes_its_layers(
    window: Callable[[], Any], project: Project, qtbot: Any
) -> None:
    viewer, panel = shown_case(window(), project, qtbot)
    collect_layers_by_role(viewer)["label"].paint((5, 5, 5), 1)
    panel.parentWidget().destroyOnClose()
    assert project.labels.read("scan-3")[5, 5, 5] == 1
    assert collect_layers_by_role(viewer) == {}


def test_brush_and_structure_list_are_synchronized(
    shared_window: Any, project: Project, qtbot: Any
) -> None:
    project.add_class("another")
    viewer, panel = shown_case(shared_window, project, qtbot)
    label = collect_layers_by_role(viewer)["label"]
    label.selected_label = 2
    assert panel.annotate.structures.list.currentRow() == 1
    label.selected_label = 7  # no structure has this value
    assert label.selected_label == 2
    panel.session.show_case("scan-4")
    qtbot.waitUntil(lambda: panel.session.case.id == "scan-4", timeout=20_000)
    assert collect_layers_by_role(viewer)["label"].selected_label == 2
    panel.annotate.structures.list.setCurrentRow(0)
    assert collect_layers_by_role(viewer)["label"].selected_label == 1


def test_a_removed_label_layer_is_restored_by_a_click(
    shared_window: Any, project: Project, qtbot: Any
) -> None:
    viewer, panel = shown_case(shared_window, project, qtbot)
    viewer.layers.remove(collect_layers_by_role(viewer)["label"])
    item = panel.data.case_list.topLevelItem(3)
    for _ in range(2):
        panel.data.case_list.itemClicked.emit(item, 0)
    qtbot.waitUntil(lambda: "label" in collect_layers_by_role(viewer), timeout=20_000)


def test_the_uncertainty_overlay_can_cover_the_complete_range(
    window: Callable[[], Any], project: Project, qtbot: Any
) -> None:
    viewer, panel = shown_case(window(), project, qtbot)
    panel.layers.overlays.set_threshold(1.0)
    run = project.runs.create("dycon", {})
    shape = project.read_image("scan-3").shape
    zeros = np.zeros(shape, np.float32)
    project.predictions.write(run.id, "scan-3", zeros.astype(np.uint8), zeros, zeros)
    panel.session.refresh_prediction("scan-3")
    qtbot.waitUntil(lambda: set(collect_layers_by_role(viewer)) == ROLES, timeout=20_000)


def test_many_tasks_leave_the_window_usable(shared_window: Any, qtbot: Any) -> None:
    """Qt converts pictures in threads of its global pool, and waits for them."""
    from qtpy.QtCore import QSize, QThreadPool
    from qtpy.QtGui import QImage

    _, panel = shared_window
    runner, count = panel.task_runner, 2 * MAX_THREADS
    is_over = threading.Event()

    def events() -> Any:
        while not is_over.wait(0.02):
            yield IdleEvent()

    def compute() -> int:  # in Python, so that threads wait for each other
        total = 0
        while not is_over.is_set():
            total += sum(range(1000))
        return total

    ended: list[int] = []
    faulthandler.dump_traceback_later(60, exit=True)  # a window that waits for ever
    for number in range(count):
        runner.stream(
            f"job {number}", events(), lambda _: None, get_progress=lambda: Progress("", None)
        )
        runner.submit(compute, ended.append, pytest.fail)
    qtbot.wait(100)
    assert not runner.is_idle
    assert QThreadPool.globalInstance().activeThreadCount() == 0
    image = QImage(QSize(2000, 2000), QImage.Format.Format_ARGB32)
    assert image.scaled(900, 900).width() == 900
    is_over.set()
    qtbot.waitUntil(lambda: runner.is_idle, timeout=20_000)
    faulthandler.cancel_dump_traceback_later()
    assert len(ended) == count


def test_no_section_is_wider_than_the_panel(shared_window: Any, qtbot: Any) -> None:
    _, panel = shared_window
    qtbot.wait(200)
    for index in range(panel.tabs.count()):
        panel.tabs.setCurrentIndex(index)
        qtbot.wait(50)
        scroll = panel.tabs.widget(index)
        needed = scroll.widget().minimumSizeHint().width()
        bar = scroll.verticalScrollBar().sizeHint().width()
        least = panel.minimumWidth() - 2 * panel.layout().contentsMargins().left() - bar
        assert needed <= least, panel.tabs.tabText(index)


def test_events_keep_their_order(shared_window: Any, qtbot: Any) -> None:
    """Also where a slot, or napari's progress bar, handles Qt events in between."""
    from qtpy.QtWidgets import QApplication

    _, panel = shared_window
    seen: list[int] = []

    def slow(event: Event) -> None:
        if event.event == "step":
            QApplication.processEvents()
            seen.append(event.step)

    steps = [StepEvent(step=i, progress=i / 200, remaining_s=1.0) for i in range(200)]
    panel.task_runner.stream(
        "job", iter(steps), slow, get_progress=lambda: Progress("a job", len(seen) / 200)
    )
    qtbot.waitUntil(lambda: len(seen) == 200, timeout=20_000)
    assert seen == sorted(seen)


def panel_signal(signal: Any, qtbot: Any) -> Any:
    """A psygnal signal as a Qt signal that ``qtbot`` can wait for."""
    from qtpy.QtCore import QObject, Signal

    class Bridge(QObject):
        fired = Signal()

    bridge = Bridge()
    signal.connect(lambda *_: bridge.fired.emit(), check_nargs=False)
    qtbot._bridges = [*getattr(qtbot, "_bridges", []), bridge]
    return bridge.fired
