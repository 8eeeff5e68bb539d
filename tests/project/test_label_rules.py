"""The status of a case follows from its label."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.project.label_rules import (
    compute_label_status,
    find_values,
    get_next_status,
)
from napari_dycon.project.models import Status


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([UNANNOTATED, UNANNOTATED], Status.UNLABELED),
        ([UNANNOTATED, 0], Status.IN_PROGRESS),
        ([0, 1], Status.LABELED),
    ],
)
def test_the_status_follows_from_the_label_values(values: list[int], status: Status) -> None:
    assert compute_label_status(np.array(values, np.uint8)) is status


@pytest.mark.parametrize("current", Status)
@pytest.mark.parametrize("label_status", [Status.UNLABELED, Status.IN_PROGRESS, Status.LABELED])
def test_the_next_status_follows_from_the_label_and_the_current_status(
    current: Status, label_status: Status
) -> None:
    stays_reviewed = current is Status.REVIEWED and label_status is Status.LABELED
    expected = Status.REVIEWED if stays_reviewed else label_status
    assert get_next_status(current, label_status) is expected
    for explicit in Status:
        assert get_next_status(current, label_status, explicit) is explicit


def test_statuses_are_shown_with_a_space() -> None:
    assert Status.IN_PROGRESS == "in_progress"
    assert [status.display_name for status in Status] == [
        "unlabeled", "in progress", "labeled", "reviewed",
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(2, 4, 8), (3, 5, 7), (1, 1, 1), (0, 3, 3)])
def test_values_of_labels_are_those_of_numpy(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for high in (1, 2, 3, 256):
        label = rng.integers(0, high, shape).astype(np.uint8)
        for array in (label, label[::-1], label.astype(np.int32)):
            assert find_values(array) == np.unique(array).tolist()
