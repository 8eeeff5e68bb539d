"""Fixtures of the tests of predictions."""

from __future__ import annotations

import pytest
from helpers.clock import Clock

from napari_dycon.engine.inference import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which the progress of a prediction is measured."""
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock
