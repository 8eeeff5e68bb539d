"""A window on an example with its three views, shared by the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from helpers.gestures import Gestures
from helpers.shared_example import SharedExample, share_example


@pytest.fixture(scope="module")
def shared_example(
    module_window: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedExample]:
    """Window on the example for all tests of a file."""
    yield from share_example(*module_window, tmp_path_factory, has_side_views=True)


@pytest.fixture
def gestures(shared_example: SharedExample, qtbot: Any) -> Gestures:
    """Three views of scan-3, without a tool."""
    shared_example.prepare(qtbot)
    return Gestures(shared_example.viewer, shared_example.panel, qtbot)
