"""States of a label between painting and saving."""

from __future__ import annotations

import time

import numpy as np
import pytest

from napari_dycon.application.labels import autosave_state
from napari_dycon.application.labels.autosave_state import AutosavePhase, AutosaveState


@pytest.fixture
def label() -> np.ndarray:
    return np.full((3, 4, 5), 255, np.uint8)


@pytest.fixture
def autosave(label: np.ndarray) -> AutosaveState:
    return AutosaveState(label.copy(), None)


def test_undone_strokes_need_no_save(autosave: AutosaveState, label: np.ndarray) -> None:
    assert not autosave.has_unsaved_changes(label)
    label[1, 1, 1] = 1
    assert autosave.has_unsaved_changes(label)
    label[1, 1, 1] = 255
    assert not autosave.has_unsaved_changes(label)


def test_a_failed_background_save_is_retried_after_a_delay(
    autosave: AutosaveState, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert autosave.can_try()
    autosave.mark_failed(retry_later=True)
    assert autosave.phase is AutosavePhase.FAILED
    assert not autosave.can_try()
    later = time.monotonic() + autosave_state.RETRY_INTERVAL_S + 1.0
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert autosave.can_try()


def test_a_failed_flush_does_not_delay_later_saves(autosave: AutosaveState) -> None:
    autosave.mark_failed(retry_later=False)
    assert autosave.phase is AutosavePhase.FAILED
    assert autosave.can_try()


def test_only_a_save_after_a_failure_is_reported(autosave: AutosaveState) -> None:
    assert not autosave.mark_saved()
    autosave.mark_failed(retry_later=True)
    assert autosave.mark_saved()
    assert (autosave.phase, autosave.can_try()) == (AutosavePhase.SAVED, True)
    assert not autosave.mark_saved()


def test_a_recovered_label_counts_as_saved_until_it_changes(
    autosave: AutosaveState, label: np.ndarray
) -> None:
    label[1, 1, 1] = 1
    autosave.remote_label = np.zeros_like(label)
    autosave.mark_failed(retry_later=True)
    autosave.mark_recovered(label)
    assert autosave.phase is AutosavePhase.RECOVERED
    assert not autosave.has_unsaved_changes(label)
    assert autosave.remote_label is None
    label[2, 2, 2] = 1
    assert autosave.has_unsaved_changes(label)
    assert autosave.mark_saved()  # the user hears that the project holds it after all
