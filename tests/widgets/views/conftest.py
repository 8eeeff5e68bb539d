"""A window on an example with its three views, shared by the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from helpers.box_scans import make_scan_project
from helpers.gestures import Gestures
from helpers.shared_example import SharedExample


@pytest.fixture(scope="module")
def shared_example(
    module_window: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedExample]:
    """Window on the example for all tests of a file."""
    viewer, panel = module_window
    example = SharedExample(
        viewer,
        panel,
        lambda: make_scan_project(tmp_path_factory.mktemp("example")),
        has_side_views=True,
    )
    yield example
    example.close()


@pytest.fixture
def gestures(shared_example: SharedExample, qtbot: Any) -> Gestures:
    """Three views of scan-3, without a tool."""
    shared_example.prepare(qtbot)
    return Gestures(shared_example.viewer, shared_example.panel, qtbot)
