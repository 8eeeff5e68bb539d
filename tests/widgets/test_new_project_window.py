"""The dialog of a new project tells what it recognized, in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtWidgets import QDialogButtonBox

from napari_dycon.project.importing.preview import preview_import
from napari_dycon.widgets.background.task_runner import NapariTaskRunner
from napari_dycon.widgets.dialogs import new_project
from napari_dycon.widgets.dialogs.new_project import LOOKING_TEXT, NewProjectDialog

pytestmark = pytest.mark.gui


@pytest.fixture
def task_runner(needs_display: None, qtbot: Any) -> Any:
    runner = NapariTaskRunner()
    yield runner
    qtbot.waitUntil(lambda: runner.is_idle, timeout=20_000)
    runner.close()


@pytest.fixture
def make_dialog(task_runner: Any, qtbot: Any) -> Callable[..., NewProjectDialog]:
    def make(images: Path | None = None) -> NewProjectDialog:
        dialog = NewProjectDialog(None, images, task_runner)
        qtbot.addWidget(dialog)
        dialog.show()
        return dialog

    return make


def test_what_was_recognized_is_shown(make_dialog: Any, scans: Path, qtbot: Any) -> None:
    dialog = make_dialog(scans / "images")
    height = dialog.height()
    assert dialog.preview_label.text() == LOOKING_TEXT
    assert dialog.target.text() == str(scans / f"{scans.parent.name}-dycon")

    def says(text: str) -> None:
        qtbot.waitUntil(lambda: dialog.preview_label.text() == text, timeout=20_000)

    says("Found 6 cases, no labels.")
    dialog.labels.setText(str(scans / "labels"))
    assert dialog.preview_label.text() == LOOKING_TEXT
    says("Found 6 cases, 3 labels.")
    dialog.classes.setText("box")
    says("Found 6 cases, 3 labels; structure: box.")
    assert dialog.height() == height  # nothing moved
    dialog.labels.setText("")
    (scans / "empty").mkdir()
    dialog.images.setText(str(scans / "empty"))
    qtbot.waitUntil(lambda: "contains no scans" in dialog.preview_label.text(), timeout=20_000)
    assert dialog.target.text() == str(scans / "empty-dycon")
    dialog.target.setText(str(scans / "mine"))
    dialog.images.setText(str(scans / "images"))
    assert dialog.target.text() == str(scans / "mine")
    dialog.channels.setText("t1, flair")
    dialog._assign_checkbox.setChecked(True)
    assert dialog.preview_label.text() == "You assign the files to channels in the next step."
    dialog.images.setText("")
    assert not dialog.buttons.button(QDialogButtonBox.StandardButton.Ok).isEnabled()


def test_a_slow_folder_does_not_block_and_its_answer_is_dropped(
    make_dialog: Any, scans: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, n_running, most = threading.Event(), [0], [0]

    def slow(images: Path, *others: Any) -> Any:
        n_running[0] += 1
        most[0] = max(most[0], n_running[0])
        assert go_on.wait(20)
        n_running[0] -= 1
        return preview_import(images, *others)

    monkeypatch.setattr(new_project, "preview_import", slow)
    dialog = make_dialog(scans / "images")
    qtbot.waitUntil(lambda: n_running[0] == 1, timeout=20_000)
    assert dialog.preview_label.text() == LOOKING_TEXT
    dialog.images.setText(str(scans / "labels"))
    qtbot.wait(700)
    assert dialog.preview_label.text() == LOOKING_TEXT
    go_on.set()
    qtbot.waitUntil(
        lambda: dialog.preview_label.text() == "Found 3 cases, no labels.", timeout=20_000
    )
    assert most[0] == 1


def test_a_dialog_closed_while_it_looks_does_no_harm(
    make_dialog: Any, scans: Path, qtbot: Any, task_runner: Any
) -> None:
    dialog = make_dialog(scans / "images")
    dialog._preview._look()
    dialog.reject()
    qtbot.waitUntil(lambda: task_runner.is_idle, timeout=20_000)
    qtbot.wait(600)
    assert dialog.preview_label.text() == LOOKING_TEXT


def test_no_placeholder_is_cut(make_dialog: Any) -> None:
    dialog = make_dialog()
    for field in (dialog.images, dialog.labels, dialog.classes, dialog.channels, dialog.target):
        needed = field.fontMetrics().horizontalAdvance(field.placeholderText())
        assert needed + 12 < field.width()
