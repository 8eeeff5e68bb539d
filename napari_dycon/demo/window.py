"""The demo in the real window: train, watch, predict, report, and pictures of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_dycon.application.active_case import CaseView
from napari_dycon.demo.run import report
from napari_dycon.engine.config import TrainConfig
from napari_dycon.errors import DyconError, EngineError
from napari_dycon.project.store import Project
from napari_dycon.session import Session
from napari_dycon.widgets.app import make_window
from napari_dycon.widgets.panel import DyconPanel

Event = dict[str, Any]
Say = Callable[[Event], None]
WINDOW = (1500, 950)


def run_in_window(
    project: Project, config: TrainConfig, out: Path, *, close: bool, say: Say
) -> None:
    """Open the project, train in the background, predict, write the report.

    With ``close`` pictures of the window are saved at the end and it closes itself.
    """
    viewer, panel = make_window()
    viewer.window.resize(*WINDOW)
    session = panel.session
    shown = project.unlabeled_cases()[0].id
    trouble: list[str] = []

    def opened(found: Project | None) -> None:
        if found is not None:
            session.show_case(shown)

    def case_shown(view: CaseView | None) -> None:
        if view is not None and session.status.phase == "idle" and not session.project_runs():
            panel.tabs.setCurrentIndex(1)
            session.start_training(config)

    def on_event(event: Event) -> None:
        say(event)
        kind = event.get("event")
        if kind in ("finished", "stopped"):
            session.predict([case.id for case in project.unlabeled_cases()])
        elif kind == "predicted all":
            done()
        elif kind == "failed":
            trouble.append(str(event["message"]))
            if close:
                QTimer.singleShot(0, viewer.close)

    def done() -> None:
        path = report(project, out, say)
        panel.tabs.setCurrentIndex(2)
        session.message.emit("info", f"The demo is done; its report is {path}")
        if close:
            QTimer.singleShot(1500, lambda: _leave(viewer, panel, out, say))

    session.project_changed.connect(opened)
    session.case_shown.connect(case_shown)
    session.event.connect(on_event)
    session.open_project(project.path)
    napari.run()
    if trouble:
        raise EngineError(trouble[0])


def _leave(viewer: napari.Viewer, panel: DyconPanel, out: Path, say: Say) -> None:
    try:
        for path in save_pictures(viewer, panel, out):
            say({"event": "demo", "message": f"Picture: {path}", "picture": str(path)})
    finally:
        viewer.close()


def save_pictures(viewer: napari.Viewer, panel: DyconPanel, out: Path) -> list[Path]:
    """Go to the most uncertain place and save the whole window in both themes."""
    session: Session = panel.session
    try:
        place = session.next_uncertain()
        if place is not None:
            panel.layers.center_on(place)
            viewer.reset_view()
    except DyconError:
        pass  # nothing shown or predicted: the picture shows just that
    for widget in QApplication.allWidgets():  # notes that came long ago would hide the scan
        if type(widget).__name__ == "NapariQtNotification":
            widget.close()
    paths = []
    for theme, tab in (("dark", 2), ("light", 1)):
        viewer.theme = theme
        panel.tabs.setCurrentIndex(tab)
        QApplication.processEvents()
        path = out / f"window-{theme}.png"
        viewer.screenshot(str(path), canvas_only=False, flash=False)
        paths.append(path)
    return paths
