"""The message area: what kind a message is, when it goes, and that nothing moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from napari.utils.theme import get_theme
from qtpy.QtWidgets import QPlainTextEdit

from napari_dycon.application.training.status import RunStatus
from napari_dycon.project.store import Project
from napari_dycon.widgets.window import message_bar
from napari_dycon.widgets.window.contrast import contrast_ratio
from napari_dycon.widgets.window.message_bar import LEVEL_COLORS, choose_color

pytestmark = pytest.mark.gui


@pytest.fixture
def shown_panel(example_panel: Any) -> Any:
    """Panel of a window on a project with scan-3 in view."""
    return example_panel[1]


LONG_ERROR = (
    "Case patient-017 cannot be read: its file is shorter than its header says; expected 3,145,728 "
    "bytes, found 12. Copy it again from its source."
)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast_ratio("#ffffff", "#000000") == pytest.approx(21.0)
    assert contrast_ratio("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_every_level_is_readable_in_both_themes(theme: str) -> None:
    background = get_theme(theme).background.as_hex()
    for level in LEVEL_COLORS:
        assert contrast_ratio(choose_color(level, background), background) >= 4.5, level


def test_levels_differ_in_icon_and_color(shown_panel: Any) -> None:
    bar = shown_panel.message_label
    icons, colors = set(), set()
    for level in LEVEL_COLORS:
        bar.show_message(level, "Something happened.")
        image = bar.icon_label.pixmap().toImage()
        icons.add(tuple(image.pixelColor(x, 3).alpha() for x in range(image.width())))
        colors.add(bar.text_label.styleSheet())
        assert message_bar.LEVEL_NAMES[level] in bar.text_label.accessibleName()
    assert len(icons) == len(colors) == len(LEVEL_COLORS)


def test_nothing_moves_when_a_message_comes(shown_panel: Any, qtbot: Any) -> None:
    panel = shown_panel
    panel.message_label.dismiss()
    qtbot.wait(50)

    def positions() -> list[Any]:
        return [w.geometry() for w in (panel.tabs, panel.data, panel.message_label)]

    before = positions()
    for level, text in (("info", "Slice 45 marked complete."), ("error", LONG_ERROR)):
        panel.session.message.emit(level, text)
        qtbot.wait(50)
        assert positions() == before
    assert panel.message_label.text() == LONG_ERROR
    shown = panel.message_label.text_label
    assert shown.text().endswith("…")  # the rest is in the tooltip and in the list
    assert len(shown.text()) > 50  # both lines are used
    assert "Copy it again" in shown.toolTip()


def test_news_go_after_some_seconds_and_errors_stay(shown_panel: Any, qtbot: Any) -> None:
    bar = shown_panel.message_label
    assert bar._news_timer.interval() == 15_000
    bar._news_timer.setInterval(100)
    try:
        bar.show_message("info", "Slice 45 marked complete.")
        qtbot.waitUntil(lambda: bar.text() == "", timeout=5_000)
        for level in ("warning", "error"):
            bar.show_message("info", "News")
            bar.show_message(level, "Stays.")
            qtbot.wait(300)
            assert bar.text() == "Stays."
    finally:
        bar._news_timer.setInterval(15_000)  # the window is shared


def test_another_case_drops_news_and_warnings_only(shown_panel: Any, qtbot: Any) -> None:
    session, bar = shown_panel.session, shown_panel.message_label
    for number, (level, stays) in enumerate((("info", False), ("warning", False), ("error", True))):
        bar.show_message(level, "About this case.")
        case = f"scan-{4 + number % 2}"
        session.show_case(case)
        qtbot.waitUntil(lambda case=case: session.case.id == case, timeout=20_000)
        assert (bar.text() == "About this case.") == stays
    bar.dismiss_button.click()
    assert bar.text() == ""


def test_the_start_of_a_training_drops_the_message_of_the_last_one(shown_panel: Any) -> None:
    state, bar = shown_panel.session.state, shown_panel.message_label
    bar.show_message("warning", "The time was too short to learn much (11 steps).")
    state.set_run_status(RunStatus("training", "001-dycon", text="Training"))
    assert bar.text()
    state.set_run_status(RunStatus("starting", "002-dycon", text="Starting training (run 002)"))
    assert bar.text() == ""
    state.set_run_status(RunStatus())


@pytest.mark.parametrize("step", ["undo", "redo"])
def test_undo_and_redo_drop_the_news_of_the_edit(shown_panel: Any, qtbot: Any, step: str) -> None:
    panel = shown_panel
    session = panel.session
    session.case.label[4, 5:15, 5:13] = session.case.label[12, 5:15, 5:13] = 1
    session.annotation.fill_between([1], axis=0)
    qtbot.waitUntil(lambda: "Filled" in panel.message_label.text(), timeout=20_000)
    label = panel.layers.find_layer("label")
    assert (session.case.label[8] == 1).any()
    label.undo()
    assert not (session.case.label[8] == 1).any()
    if step == "redo":
        session.message.emit("info", "News")
        label.redo()
        assert (session.case.label[8] == 1).any()
    assert panel.message_label.text() == ""
    session.message.emit("error", "An error")
    label.undo()
    assert panel.message_label.text() == "An error"


def test_messages_that_come_together_are_shown_together(shown_panel: Any) -> None:
    bar = shown_panel.message_label
    bar.dismiss()
    for name in ("anna", "bert"):
        bar.show_message("warning", f"{name} was left out.")
    assert bar.text() == "anna was left out.\nbert was left out."
    bar.show_message("error", "Nothing was added.")
    assert bar.text() == "Nothing was added."
    bar.show_recent()
    (view,) = bar.findChildren(QPlainTextEdit)
    text = view.toPlainText()
    assert [text.index(part) for part in ("Error: Nothing", "bert", "anna")] == sorted(
        text.index(part) for part in ("Error: Nothing", "bert", "anna")
    )


def test_names_in_messages_are_shown_literally(shown_panel: Any) -> None:
    bar = shown_panel.message_label
    bar.show_message("error", "<b>bold</b>\x1b[31m")
    assert bar.text_label.text().startswith("<b>bold</b>")
    assert "\x1b" not in bar.text_label.text()
    assert "<b>" not in bar.text_label.toolTip()


def test_errors_cover_the_scan_only_while_the_panel_is_hidden(
    window: Callable[[], Any], project: Project, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_dycon.widgets import panel as module

    notified: list[str] = []
    monkeypatch.setitem(module.NOTIFIERS, "error", notified.append)
    _, panel = window()
    qtbot.wait(100)
    panel.session.message.emit("error", "Seen in the panel.")
    assert notified == []
    panel.parentWidget().hide()
    panel.session.message.emit("error", "Seen over the scan.")
    assert notified == ["Seen over the scan."]
    panel.parentWidget().show()
    assert "Seen over the scan." in panel.message_label.text()


def test_the_result_of_a_training_stays_until_the_next_task(shown_panel: Any, qtbot: Any) -> None:
    panel, bar = shown_panel, shown_panel.message_label
    text = "Training finished: 120 steps in 3 min."
    panel.session.message.emit("info", "Slice 45 marked complete.")
    panel.session.message.emit("result", text)
    assert bar.text() == text  # not after the news of something else
    assert bar.level == "info"
    assert not bar._news_timer.isActive()
    panel.session.show_case("scan-4")
    qtbot.waitUntil(lambda: panel.session.case.id == "scan-4", timeout=20_000)
    assert bar.text() == text
    panel.session.state.set_run_status(RunStatus("starting", "002-dycon"))
    assert not bar.text()
    panel.session.state.set_run_status(RunStatus())
    panel.session.message.emit("result", text)
    panel.session.message.emit("info", "Slice 46 marked complete.")
    assert bar.text().endswith("Slice 46 marked complete.")


def test_a_message_that_repeats_the_last_one_replaces_it(shown_panel: Any) -> None:
    bar = shown_panel.message_label
    bar.dismiss()
    bar.show_message("warning", "The time was too short.")
    bar.show_message("warning", "Training finished: 8 steps in 9 s. The time was too short.")
    assert bar.text() == "Training finished: 8 steps in 9 s. The time was too short."
