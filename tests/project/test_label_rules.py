"""The status of a case follows from its label."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.project.label_rules import compute_label_status, get_next_status
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
