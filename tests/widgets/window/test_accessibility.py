"""Every control has a name for screen readers, is reached by the keyboard, and is readable."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.controls import describe, list_controls
from napari.utils.theme import get_theme
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QImage, QPainter
from qtpy.QtWidgets import QStyle, QStyleOptionButton

MIN_CONTRAST = 4.5  # WCAG 2.2, level AA, for text of normal size


@pytest.mark.gui
def test_every_control_has_a_name_and_is_reached_by_the_keyboard(example_panel: Any) -> None:
    _, panel = example_panel
    controls = list(list_controls(panel, panel.canvas_area.toolbar))
    assert len(controls) > 60
    unnamed = [
        (type(control).__name__, control.toolTip()[:60])
        for control in controls
        if len(describe(control).strip("… ◀▶↶↷?⋯")) < 1
    ]
    assert unnamed == []
    unreachable = [
        describe(control)
        for control in controls
        if not control.focusPolicy() & Qt.FocusPolicy.TabFocus
    ]
    assert unreachable == []


@pytest.mark.gui
def test_the_button_with_the_focus_has_a_border(opened_panel: Any) -> None:
    viewer, panel = opened_panel
    button = panel.annotate.structures.add_button

    def draw(state: Any) -> QImage:
        option = QStyleOptionButton()
        option.initFrom(button)
        option.text = button.text()
        option.state = QStyle.StateFlag.State_Enabled | state
        image = QImage(button.size(), QImage.Format.Format_RGB32)
        painter = QPainter(image)
        button.style().drawControl(QStyle.ControlElement.CE_PushButton, option, painter, button)
        painter.end()
        return image

    text = QColor(get_theme(viewer.theme).text.as_hex(format="long"))
    middle = button.width() // 2
    assert draw(QStyle.StateFlag.State_HasFocus).pixelColor(middle, 0) == text
    assert draw(QStyle.StateFlag.State_None).pixelColor(middle, 0) != text


def compute_contrast(first: str, second: str) -> float:
    """Contrast ratio of two colors like "#2a8fd0", after WCAG 2.2."""

    def luminance(color: str) -> float:
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", ["dark", "light"])
def test_texts_are_readable_in_both_themes(name: str) -> None:
    theme = get_theme(name)
    text = theme.text.as_hex(format="long")
    surfaces = {
        surface: getattr(theme, surface).as_hex(format="long")
        for surface in ("background", "foreground", "current")
    }
    for surface, color in surfaces.items():
        assert compute_contrast(text, color) >= MIN_CONTRAST, surface
