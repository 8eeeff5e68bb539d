"""The demo in napari: train, predict, report, screenshots."""

from __future__ import annotations

import time
from pathlib import Path

import napari
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.demo.run import (
    OnEvent,
    create_demo_project,
    make_demo_config,
    write_demo_report,
)
from napari_dycon.errors import DyconError, EngineError
from napari_dycon.project.runs.events import (
    DemoEvent,
    Event,
    FailedEvent,
    FinishedEvent,
    PredictionFinishedEvent,
    StoppedEvent,
)
from napari_dycon.project.store import Project
from napari_dycon.session import Session
from napari_dycon.widgets.app import make_window
from napari_dycon.widgets.layers.napari_internals import close_notifications
from napari_dycon.widgets.panel import DyconPanel

WINDOW_SIZE = (1500, 950)
DRAWING_S = 1.0  # before a screenshot


def run_in_window(out: Path, *, steps: int | None, close: bool, on_event: OnEvent) -> None:
    """Create everything below ``out`` in napari: train in the background, predict, report.

    Parameters
    ----------
    out : folder of the demo
    steps : of training; without it, it ends after ``TIME_LIMIT_S``
    close : save screenshots at the end and close the window
    on_event : called with every event of the engine, and with ``demo`` events that hold a message
    """
    project = create_demo_project(out, on_event)
    config = make_demo_config(steps)
    viewer, panel = make_window()
    viewer.window.resize(*WINDOW_SIZE)
    session = panel.session
    first_case = project.unlabeled_cases()[0].id
    failures: list[str] = []

    def on_project_changed(opened_project: Project | None) -> None:
        if opened_project is not None:
            session.show_case(first_case)

    def on_case_shown(case: ActiveCase | None) -> None:
        if case is not None and session.status.phase == "idle" and not session.list_run_ids():
            panel.sections.show_section(panel.train)
            session.start_training(config)

    def relay_event(event: Event) -> None:
        on_event(event)
        if isinstance(event, (FinishedEvent, StoppedEvent)):
            session.predict([case.id for case in project.unlabeled_cases()])
        elif isinstance(event, PredictionFinishedEvent):
            finish()
        elif isinstance(event, FailedEvent):
            failures.append(event.message)
            if close:
                QTimer.singleShot(0, viewer.close)

    def finish() -> None:
        path = write_demo_report(project, out, on_event)
        panel.sections.show_section(panel.review)
        session.message.emit("info", f"The demo has finished; report: {path}")
        if close:
            QTimer.singleShot(1500, lambda: _save_and_close(viewer, panel, out, on_event))

    session.project_changed.connect(on_project_changed)
    session.case_shown.connect(on_case_shown)
    session.event.connect(relay_event)
    session.open_project(project.path)
    napari.run()
    if failures:
        raise EngineError(failures[0])


def _save_and_close(viewer: napari.Viewer, panel: DyconPanel, out: Path, on_event: OnEvent) -> None:
    try:
        for path in save_screenshots(viewer, panel, out):
            on_event(DemoEvent(message=f"Screenshot: {path}", picture=str(path)))
    finally:
        viewer.close()


def save_screenshots(viewer: napari.Viewer, panel: DyconPanel, out: Path) -> list[Path]:
    """Center the most uncertain region and save the whole window in both themes."""
    session: Session = panel.session
    try:
        position = session.next_uncertain()
        if position is not None:
            panel.layers.center_on(position)
            viewer.reset_view()
    except DyconError:
        pass  # no case or prediction is shown
    close_notifications()  # they would hide the scan
    paths = []
    for theme, section in (("dark", panel.review), ("light", panel.train)):
        viewer.theme = theme
        panel.sections.show_section(section)
        end = time.monotonic() + DRAWING_S
        while time.monotonic() < end:  # views and copies of layers follow one by one
            QApplication.processEvents()
        path = out / f"window-{theme}.png"
        viewer.screenshot(str(path), canvas_only=False, flash=False)
        paths.append(path)
    return paths
