"""Whatever napari's own controls do to the layers of a case, strokes reach the disk."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels, _layer_actions
from napari.layers.labels import _labels_key_bindings

from napari_dycon.errors import LabelError
from napari_dycon.project.store import Project
from napari_dycon.widgets.background import interaction
from napari_dycon.widgets.layers import case_layers

pytestmark = pytest.mark.gui
STROKES = ((4, 5, 6), (9, 10, 11), (12, 6, 8))


class Clinician:
    """Paints in the layer that is selected, as napari's brush does."""

    def __init__(self, viewer: Any, panel: Any, project: Project, qtbot: Any) -> None:
        self.viewer, self.panel, self.project, self.qtbot = viewer, panel, project, qtbot
        self.session, self.layers = panel.session, panel.layers
        self.messages: list[tuple[str, str]] = []
        self.session.message.connect(lambda level, text: self.messages.append((level, text)))
        self.label = self.layers.find_layer("label")
        self.label.brush_size = 3

    def settle(self) -> None:
        """Let deferred steps happen."""
        self.qtbot.wait(120)

    def paint(self, *places: tuple[int, int, int], value: int = 1) -> None:
        """Paint with whatever layer is selected; nothing if it cannot be painted."""
        layer = self.viewer.layers.selection.active
        assert isinstance(layer, Labels)
        assert layer.editable
        for place in places:
            layer.paint(place, value)

    def read_disk(self) -> Any:
        """Save the label and read it from the file."""
        self.session.flush()
        return self.project.labels.read("scan-3")

    def check_saved(self, *places: tuple[int, int, int], value: int = 1) -> None:
        """Every stroke is in the array of the case and on disk."""
        disk = self.read_disk()
        for place in places:
            assert self.session.case.label[place] == value
            assert disk[place] == value
        assert np.array_equal(disk, self.session.case.label)
        assert self.layers.find_layer("label").data is self.session.case.label


@pytest.fixture
def clinician(opened_panel: Any, project: Project, qtbot: Any) -> Clinician:
    viewer, panel = opened_panel
    qtbot.wait(200)
    viewer.layers.selection.active = panel.layers.find_layer("label")
    return Clinician(viewer, panel, project, qtbot)


def test_strokes_after_converting_the_data_type(clinician: Clinician) -> None:
    """napari advises this conversion itself; 42 of 42 later voxels were lost."""
    clinician.paint(STROKES[0])
    with pytest.raises(AssertionError):  # 255 does not fit
        _layer_actions._convert_dtype(clinician.viewer.layers, "int8")
    for dtype in ("int16", "int32", "int64", "uint8", "uint16", "uint64"):
        _layer_actions._convert_dtype(clinician.viewer.layers, dtype)
        clinician.settle()
        assert clinician.label.data.dtype == np.uint8
    clinician.paint(*STROKES[1:])
    clinician.check_saved(*STROKES)
    clinician.label.undo()
    clinician.label.undo()
    clinician.check_saved(STROKES[0])
    assert clinician.session.case.label[STROKES[1]] == 255
    clinician.label.undo()
    assert clinician.session.case.label[STROKES[0]] == 255


def test_strokes_after_converting_to_an_image(clinician: Clinician) -> None:
    clinician.paint(STROKES[0])
    _layer_actions._convert_to_image(clinician.viewer.layers)
    clinician.settle()
    assert [layer for layer in clinician.viewer.layers if layer.name.startswith("label")] == [
        clinician.label
    ]
    assert clinician.viewer.layers.selection.active is clinician.label
    assert "cannot be converted" in clinician.messages[-1][1]
    clinician.paint(*STROKES[1:])
    clinician.check_saved(*STROKES)
    clinician.label.undo()
    assert clinician.session.case.label[STROKES[2]] == 255


def test_strokes_after_duplicating(clinician: Clinician) -> None:
    clinician.paint(STROKES[0])
    _layer_actions._duplicate_layer(clinician.viewer.layers)
    clinician.settle()
    copy = clinician.viewer.layers["label copy"]
    assert not copy.editable
    assert not copy.locked
    assert clinician.layers.find_layers("label") == [clinician.label]
    assert clinician.viewer.layers.selection.active is clinician.label
    assert "not saved" in clinician.messages[-1][1]
    clinician.paint(*STROKES[1:])
    clinician.check_saved(*STROKES)
    assert copy.data[STROKES[0]] == 1
    assert copy.data[STROKES[1]] == 255  # a copy of an earlier state
    clinician.viewer.layers.remove(copy)  # it is the user's
    clinician.settle()
    assert "label copy" not in clinician.viewer.layers


def test_strokes_after_removing(clinician: Clinician) -> None:
    clinician.paint(STROKES[0])
    layers = clinician.viewer.layers
    order = [layer.name for layer in layers if layer.locked]
    for remove in (layers.remove_selected, lambda: layers.remove(clinician.label), layers.clear):
        remove()
        clinician.settle()
        assert clinician.layers.find_layer("label") is clinician.label
        assert [layer.name for layer in layers if layer.locked] == order
        assert layers.selection.active is clinician.label
    clinician.paint(*STROKES[1:])
    clinician.check_saved(*STROKES)
    clinician.session.accept_prediction()  # tools write through the layer, and can be undone
    clinician.label.undo()
    clinician.check_saved(*STROKES)


def test_strokes_after_renaming(clinician: Clinician) -> None:
    clinician.label.name = "atrium, my version"
    clinician.paint(*STROKES)
    clinician.check_saved(*STROKES)
    clinician.session.show_case("scan-2")
    clinician.qtbot.waitUntil(lambda: clinician.session.case.id == "scan-2", timeout=20_000)
    clinician.session.show_case("scan-3")
    clinician.qtbot.waitUntil(lambda: clinician.session.case.id == "scan-3", timeout=20_000)
    clinician.check_saved(*STROKES)


def test_napari_new_button_explains_how_to_add_a_structure(clinician: Clinician) -> None:
    """Its next value is 256 wherever a voxel is unannotated, which does not fit into the label."""
    value = clinician.label.selected_label
    _labels_key_bindings.new_label(clinician.label)
    clinician.settle()
    assert clinician.label.selected_label == value
    assert "Add structure" in clinician.messages[-1][1]
    assert "256" not in clinician.messages[-1][1]
    clinician.label.selected_label = -1
    assert clinician.label.selected_label == value
    clinician.paint(*STROKES)
    clinician.check_saved(*STROKES)


def test_data_assigned_by_a_script(clinician: Clinician) -> None:
    clinician.paint(STROKES[0])
    new = np.zeros(clinician.label.data.shape, np.int32)
    new[2:4, 3:5, 6:8] = 1
    clinician.label.data = new
    clinician.settle()
    assert np.array_equal(clinician.session.case.label, new)
    clinician.paint(*STROKES)
    clinician.check_saved(*STROKES, (2, 3, 6))
    for _ in STROKES:
        clinician.label.undo()
    assert np.array_equal(clinician.read_disk(), new)
    clinician.label.undo()  # the assignment itself
    assert clinician.session.case.label[STROKES[0]] == 1
    assert clinician.session.case.label[0, 0, 0] == 255


def test_data_that_does_not_fit_is_rejected(clinician: Clinician) -> None:
    clinician.paint(STROKES[0])
    shape = clinician.label.data.shape
    for data in (
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((24, 24), np.uint8),
        np.full(shape, 300, np.int32),
        np.full(shape, -1, np.int16),
        np.zeros(shape, np.float32),
    ):
        with pytest.raises(LabelError, match="was not changed"):
            clinician.label.data = data
    clinician.paint(*STROKES[1:])
    clinician.check_saved(*STROKES)


@pytest.mark.filterwarnings("ignore:projection mode")
def test_copies_of_other_layers_are_not_taken_for_them(clinician: Clinician) -> None:
    viewer, layers = clinician.viewer, clinician.layers
    viewer.layers.selection = {layers.find_layer("prediction"), layers.find_layer("uncertainty")}
    _layer_actions._duplicate_layer(viewer.layers)
    viewer.layers.selection = {layers.find_layer("disagreement")}
    _layer_actions._convert_to_labels(viewer.layers)
    clinician.settle()
    for role in ("prediction", "uncertainty", "disagreement"):
        assert len(layers.find_layers(role)) == 1
    assert viewer.layers.selection.active is clinician.label
    clinician.paint(*STROKES)
    clinician.check_saved(*STROKES)


@pytest.mark.filterwarnings("ignore:projection mode")  # napari's own
def test_the_scan_stays(clinician: Clinician) -> None:
    viewer, image = clinician.viewer, clinician.layers.find_layer("image")
    before = np.array(image.data)
    names = [layer.name for layer in viewer.layers]
    image.data = image.data.astype(np.int16)  # napari replaces a layer of integers
    for action in (_layer_actions._split_stack, _layer_actions._convert_to_labels):
        viewer.layers.selection = {image}
        viewer.layers.selection.active = image
        layers_before = set(viewer.layers)
        action(viewer.layers)
        assert set(viewer.layers) != layers_before
        clinician.settle()
        assert [layer.name for layer in viewer.layers] == names
    assert isinstance(clinician.layers.find_layer("image"), Image)
    assert viewer.layers.selection.active is clinician.label
    clinician.paint(*STROKES)
    clinician.check_saved(*STROKES)
    assert np.array_equal(clinician.session.case.image.array, before)


def test_layers_cannot_be_moved_off_the_scan(clinician: Clinician) -> None:
    """napari's transform tool and *Paste scale and transforms* would displace later strokes."""
    spacing = clinician.session.case.image.spacing_mm
    for role in ("label", "image"):
        layer = clinician.layers.find_layer(role)
        layer.affine = [[1, 0, 0, 3], [0, 1, 0, 4], [0, 0, 1, 5], [0, 0, 0, 1]]
        assert np.allclose(layer.affine.affine_matrix, np.eye(4))
        assert f"The {'label' if role == 'label' else 'scan'}" in clinician.messages[-1][1]
        layer.translate = (1, 2, 3)
        layer.scale = (9, 9, 9)
        assert np.allclose(layer.scale, spacing)
        assert not np.any(layer.translate)
    clinician.viewer.layers.selection.active = clinician.label
    clinician.paint(*STROKES)
    clinician.check_saved(*STROKES)


def test_colors_shuffled_by_napari(clinician: Clinician, qtbot: Any) -> None:
    clinician.label.new_colormap()
    clinician.paint(*STROKES)
    clinician.check_saved(*STROKES)
    clinician.session.cases_changed.emit()
    assert np.allclose(clinician.label.colormap.color_dict[1][3], 0.35)


def test_all_menu_actions_of_the_layer_list(clinician: Clinician) -> None:
    """Each command that napari offers for the selected label, one after the other."""
    from napari._app_model import get_app_model

    app = get_app_model()
    ids = [
        item.command.id
        for item in app.menus.get_menu("napari/layers/context")
        if hasattr(item, "command")
    ]
    assert any("convert" in name for name in ids)
    for place, command in zip(
        [(z, 2 + z % 12, 3 + z % 9) for z in range(3, 3 + len(ids))], ids, strict=False
    ):
        clinician.viewer.layers.selection.active = clinician.label
        try:
            app.commands[command].run_injected()
        except Exception as error:  # napari's own refusals
            clinician.messages.append(("error", str(error)))
        clinician.settle()
        place = tuple(min(p, n - 2) for p, n in zip(place, clinician.label.data.shape, strict=True))
        if not clinician.label.visible:
            clinician.label.visible = True
        clinician.viewer.layers.selection.active = clinician.label
        clinician.paint(place)
        clinician.check_saved(place)


def test_drawing_without_a_pause_is_saved_all_the_same(
    clinician: Clinician, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = clinician.label
    label.paint(STROKES[0], 0)
    clinician.session.flush()

    def is_saved() -> bool:
        label.paint(STROKES[1], int(label.data[STROKES[1]] != 1))
        return bool(clinician.project.labels.read("scan-3")[STROKES[0]] == 1)

    start = time.monotonic()
    with monkeypatch.context() as drawing:
        drawing.setattr(interaction, "PAUSE_S", 0.4)
        label.paint(STROKES[0], 1)
        assert clinician.panel.task_runner.interactions.remaining_s > 0
        clinician.qtbot.waitUntil(is_saved, timeout=10_000)
    assert time.monotonic() - start < 6.0


def test_a_stroke_is_not_saved_before_it_ends(
    clinician: Clinician, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case_layers, "MAX_UNSAVED_S", 60.0)
    with monkeypatch.context() as drawing:
        drawing.setattr(interaction, "PAUSE_S", 4.0)
        clinician.paint(STROKES[0])
        clinician.qtbot.wait(1500)
        assert clinician.session.has_unsaved_changes
    clinician.qtbot.waitUntil(lambda: not clinician.session.has_unsaved_changes, timeout=5_000)
