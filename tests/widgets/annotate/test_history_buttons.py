"""Undo and redo say what they would change, and are disabled where there is nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.widgets.layers.edit_history import describe_edit
from napari_dycon.widgets.layers.napari_layers import LabelEdit

BOX = (slice(4, 5), slice(2, 9), slice(0, 3))


@pytest.mark.parametrize(
    ("value", "axis", "expected"),
    [
        (1, 0, "liver, slice 5"),
        (0, 1, "background, slices 3–9"),
        (UNANNOTATED, 2, "erasing, slices 1–3"),
        (None, 0, "label edit, slice 5"),
        (7, 0, "label edit, slice 5"),  # of a structure that was deleted
    ],
)
def test_descriptions_of_edits(value: int | None, axis: int, expected: str) -> None:
    assert describe_edit(LabelEdit(BOX, value), axis, {1: "liver"}) == expected


def read_tips(panel: Any) -> list[str]:
    """First lines of the tooltips of undo and redo."""
    brush = panel.annotate.brush
    return [button.toolTip().split("\n")[0] for button in (brush.undo_button, brush.redo_button)]


def read_enabled(panel: Any) -> tuple[bool, bool]:
    brush = panel.annotate.brush
    return brush.undo_button.isEnabled(), brush.redo_button.isEnabled()


@pytest.mark.gui
def test_buttons_follow_the_history(example_panel: Any, qtbot: Any) -> None:
    _viewer, panel = example_panel
    brush, label, session = panel.annotate.brush, panel.layers.find_layer("label"), panel.session
    assert read_enabled(panel) == (False, False)
    assert "nothing to undo" in brush.undo_button.toolTip()
    panel.layers.set_brush_mm(1.0)
    label.paint((6, 8, 8), 1)
    assert read_enabled(panel) == (True, False)
    assert read_tips(panel)[0] == "Undo: box, slice 7 (Ctrl+Z)"
    label.paint((6, 8, 8), UNANNOTATED)
    assert read_tips(panel)[0] == "Undo: erasing, slice 7 (Ctrl+Z)"
    session.fill_background(9, 0)  # an edit of the program
    assert read_tips(panel)[0] == "Undo: background, slice 10 (Ctrl+Z)"
    assert brush.undo_button.accessibleName() == "Undo: background, slice 10"
    brush.undo_button.click()
    assert read_enabled(panel) == (True, True)
    assert read_tips(panel) == [
        "Undo: erasing, slice 7 (Ctrl+Z)",
        "Redo: background, slice 10 (Ctrl+Shift+Z)",
    ]
    label.undo()  # by napari's key
    brush.undo_button.click()
    assert read_enabled(panel) == (False, True)
    for _ in range(3):
        brush.redo_button.click()
    assert read_enabled(panel) == (True, False)
    assert (session.case.label[9] != UNANNOTATED).all()
    with label.block_history():  # one stroke
        label.paint((3, 8, 8), 1)
        label.paint((5, 8, 8), 0)
    assert read_tips(panel)[0] == "Undo: label edit, slices 4–6 (Ctrl+Z)"
    session.show_case("scan-2")
    qtbot.waitUntil(lambda: session.case.id == "scan-2", timeout=20_000)
    assert read_enabled(panel) == (False, False)
    session.close_project()
    assert read_enabled(panel) == (False, False)


@pytest.mark.gui
def test_edits_in_a_side_view_count(example_panel: Any, qtbot: Any) -> None:
    _, panel = example_panel
    panel.canvas_area.views.show_side_views(True)
    qtbot.wait(300)
    side = panel.canvas_area.views.side_views[0]
    copy = next(layer for layer in side.model.layers if layer.name == "label")
    panel.layers.set_brush_mm(1.0)
    copy.paint((6, 8, 8), 1)
    assert read_enabled(panel) == (True, False)
    assert read_tips(panel)[0].startswith("Undo: box, slices 6–8")
    panel.annotate.brush.undo_button.click()
    assert (panel.session.case.label == UNANNOTATED).all()
    panel.canvas_area.views.show_side_views(False)


@pytest.mark.gui
def test_large_edits_are_described_in_no_time(example_panel: Any) -> None:
    _, panel = example_panel
    label = panel.layers.find_layer("label")
    values = np.zeros(label.data.shape, np.uint8)
    label.write_region(tuple(slice(0, n) for n in values.shape), values)
    undone, _ = label.read_history()
    assert undone.value == 0
    assert undone.box[0] == slice(0, values.shape[0])
