"""Errors of slots are reported as they are, not as those of the signal."""

from __future__ import annotations

import pytest
from psygnal import EmitLoopError

from napari_dycon.application.state import AppState
from napari_dycon.errors import UserError


def test_an_error_of_a_slot_keeps_its_message() -> None:
    state, messages = AppState(), []
    state.message.connect(lambda level, text: messages.append((level, text)))

    def fail() -> None:
        raise UserError("The disk is full.")

    def fail_later() -> None:
        state.edit_undone.emit()

    state.edit_undone.connect(fail)
    state.cases_changed.connect(fail_later)
    with pytest.raises(EmitLoopError) as raised:
        state.cases_changed.emit()
    state.report_error(raised.value)
    assert messages == [("error", "The disk is full.")]
