"""Which of *Paint*, *Background* and *Erase* is in use; napari's *preserve labels*."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_dycon.core.types import UNANNOTATED

pytestmark = pytest.mark.gui


def read_checked(panel: Any) -> list[str]:
    """Texts of the buttons that are highlighted."""
    brush = panel.annotate.brush
    buttons = (brush.paint_button, brush.background_button, brush.erase_button)
    return [button.text() for button in buttons if button.isChecked()]


def test_the_button_in_use_is_highlighted(example_panel: Any, qtbot: Any) -> None:
    viewer, panel = example_panel
    brush, label = panel.annotate.brush, panel.layers.find_layer("label")
    label.mode = "pan_zoom"
    assert read_checked(panel) == []
    for button in (brush.paint_button, brush.background_button, brush.erase_button):
        button.click()
        assert read_checked(panel) == [button.text()]
        button.click()  # stays in use
        assert read_checked(panel) == [button.text()]
    label.mode = "polygon"  # erases, too
    assert read_checked(panel) == ["Erase"]
    label.selected_label = 1  # by napari's own controls
    assert read_checked(panel) == ["Paint"]
    label.mode = "erase"  # of napari
    assert read_checked(panel) == ["Background"]
    brush.paint_button.click()
    viewer.layers.selection.active = panel.layers.find_layer("image")
    assert read_checked(panel) == []  # the mouse paints nothing now
    brush.paint_button.click()
    panel.layers.accept_with_brush()
    assert read_checked(panel) == []  # it copies the prediction
    brush.paint_button.click()
    assert read_checked(panel) == ["Paint"]
    panel.session.show_case("scan-2")
    qtbot.waitUntil(lambda: panel.session.case.id == "scan-2", timeout=20_000)
    assert read_checked(panel) == ["Paint"]
    panel.session.close_project()
    assert read_checked(panel) == []


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_highlight_differs_in_both_themes(example_panel: Any, qtbot: Any, theme: str) -> None:
    viewer, panel = example_panel
    viewer.theme = theme
    button = panel.annotate.brush.erase_button
    panel.layers.find_layer("label").mode = "pan_zoom"
    qtbot.wait(200)
    before = button.grab().toImage().pixelColor(4, 4)
    button.click()
    qtbot.wait(200)
    after = button.grab().toImage().pixelColor(4, 4)
    difference = [abs(a - b) for a, b in zip(before.getRgb(), after.getRgb(), strict=True)]
    assert max(difference) > 40


def test_no_stroke_is_lost_with_preserve_labels(example_panel: Any) -> None:
    """napari lets strokes change the value 0 only; most voxels are unannotated, which is 255."""
    _, panel = example_panel
    panel.session.project.add_class("second")
    label, case = panel.layers.find_layer("label"), panel.session.case
    case.label[:] = UNANNOTATED
    case.label[10, 4:8, 4:8] = 2
    case.label[10, 8:12, 4:8] = 0
    label.n_edit_dimensions, label.brush_size = 2, 9
    label.preserve_labels = True
    label.paint((10, 8, 6), 1)
    assert (case.label[10, 8:12, 4:8] == 1).sum() > 8  # background
    assert (case.label[10, 7:10, 8:10] == 1).any()  # unannotated
    assert (case.label[10, 4:8, 4:8] == 2).all()  # preserved
    label.undo()
    assert (case.label[10, 8:12, 4:8] == 0).all()
    label.fill((12, 5, 5), 1)
    assert (case.label[12] == 1).all()
    label.undo()
    label.fill((10, 5, 5), 1)  # a structure
    assert (case.label[10, 4:8, 4:8] == 2).all()
    label.paint((10, 6, 6), UNANNOTATED)  # errors can always be removed
    assert (case.label[10, 5:8, 5:8] == UNANNOTATED).all()
    label.paint((14, 6, 6), 0)
    assert case.label[14, 6, 6] == 0
    corners = [np.array([16, y, x]) for y, x in ((2, 2), (2, 12), (12, 12), (12, 2))]
    label.paint_polygon(corners, 1)
    assert case.label[16, 6, 6] == 1
    assert label.preserve_labels
    label.preserve_labels = False
    panel.session.save_label()
    assert panel.session.case.label is label.data


def test_the_3d_view_shows_no_label_to_paint(example_panel: Any, qtbot: Any) -> None:
    viewer, panel = example_panel
    brush, review = panel.annotate.brush, panel.review
    label = panel.layers.find_layer("label")
    viewer.dims.ndisplay = 3
    qtbot.wait(100)
    buttons = (brush.paint_button, brush.background_button, brush.erase_button, brush.pick_button)
    for button in buttons:
        assert not button.isEnabled()
        assert "2D view" in button.toolTip()
    said: list[str] = []
    panel.session.message.connect(lambda _, text: said.append(text))
    brush.select_value(1)  # by a key
    review.accept_brush_button.click()
    review.accept_component_button.click()
    assert not label.visible
    assert not panel.layers.is_waiting_for_click
    assert [text for text in said if "2D view" in text] == [
        "Switch to the 2D view to accept by brush.",
        "Switch to the 2D view to accept a component.",
    ]
    viewer.dims.ndisplay = 2
    qtbot.wait(100)
    assert all(button.isEnabled() for button in buttons)
    assert label.visible
