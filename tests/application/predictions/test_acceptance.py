"""Status of a case whose accepted prediction is undone."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dycon.errors import ProjectError
from napari_dycon.project.label_store import LabelStore
from napari_dycon.project.models import Status
from napari_dycon.project.store import Project
from napari_dycon.session import Session


def test_an_undo_that_cannot_be_saved_is_reported(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = project.runs.create("dycon", {})
    mask = np.zeros(project.read_image("scan-1").shape, np.uint8)
    mask[4:12, 4:12, 4:12] = 1
    zeros = np.zeros(mask.shape, np.float32)
    project.predictions.write(run.id, "scan-1", mask, zeros, zeros)
    session = Session()
    session.open_project(project.path)
    session.show_case("scan-1")
    session.set_case_status("scan-1", Status.REVIEWED)
    label = session.require_case().label
    before = label.copy()
    session.accept_prediction()
    messages: list[tuple[str, str]] = []
    session.message.connect(lambda level, text: messages.append((level, text)))

    def fail(*_: object, **__: object) -> None:
        raise ProjectError("The disk is full.")

    label[:] = before
    with monkeypatch.context() as failing:
        failing.setattr(LabelStore, "save", fail)
        session.state.edit_undone.emit()
    assert set(messages) == {("error", "The disk is full.")}
    session.flush()
    session.state.edit_undone.emit()
    assert session.require_project().get_case("scan-1").status is Status.REVIEWED
