"""The Review tab does not advise to accept predictions of validation cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from napari_dycon.project.store import Project
from napari_dycon.widgets.review.section import TRAIN_HINT, VALIDATION_HINT

pytestmark = pytest.mark.gui


def test_the_hint_depends_on_the_use_of_the_case(
    window: Callable[[], Any], project: Project, qtbot: Any
) -> None:
    project.set_split("scan-1", "validation")
    _, panel = window()
    session, hint = panel.session, panel.review.hint_label
    session.open_project(project.path)
    qtbot.waitUntil(lambda: session.project is not None, timeout=20_000)
    for case, text in (("scan-1", VALIDATION_HINT), ("scan-2", TRAIN_HINT)):
        session.show_case(case)
        qtbot.waitUntil(
            lambda case=case: session.case is not None and session.case.id == case, timeout=20_000
        )
        qtbot.waitUntil(lambda text=text: hint.text() == text, timeout=5_000)
    session.project.set_split("scan-2", "validation")
    session.cases_changed.emit()
    assert hint.text() == VALIDATION_HINT
