"""Autosave state of one label: last saved copy, version on disk, failures.

A label passes through three phases::

    SAVED      everything is on disk, or will be at the next save
    FAILED     a save failed and was reported; nothing is dropped. Saves in the background
               wait for ``RETRY_INTERVAL_S`` after one of them failed; ``flush`` tries at once
    RECOVERED  a copy of the unsaved label is in the user's home folder

    SAVED, FAILED, RECOVERED -- a save fails ----------> FAILED
    SAVED, FAILED, RECOVERED -- a save succeeds -------> SAVED   (reported after a failure)
    FAILED                   -- a copy was recovered --> RECOVERED
"""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass

import numpy as np

from napari_dycon.core.types import LabelArray

RETRY_INTERVAL_S = 30.0  # until a save in the background that failed is tried again
LabelVersion = tuple[int, int, int]


class AutosavePhase(enum.Enum):
    """Phase of saving a label."""

    SAVED = "saved"
    FAILED = "failed"
    RECOVERED = "recovered"


@dataclass
class AutosaveState:
    """State of saving one label.

    Attributes
    ----------
    saved_label : copy of the label as it was read or saved last; replaced, never edited
    label_version : state of the label's file when it was last read or written
    remote_label : content of the file after a merge; ``None`` if it equals ``saved_label``
    pending : copy that the newest unfinished save writes; ``None`` if no save is unfinished
    save_count : saves started so far, so that a slow older one never overwrites a newer one
    retry_time : when a save in the background may be tried again, on the monotonic clock in s
    """

    saved_label: LabelArray
    label_version: LabelVersion | None
    remote_label: LabelArray | None = None
    pending: LabelArray | None = None
    save_count: int = 0
    phase: AutosavePhase = AutosavePhase.SAVED
    retry_time: float = 0.0

    def has_unsaved_changes(self, label: LabelArray) -> bool:
        """Whether the label differs from its file, also if a save is about to write it."""
        return self.pending is not None or not are_equal(label, self.saved_label)

    def needs_save(self, label: LabelArray) -> bool:
        """Whether the label will differ from its file after all saves that were started."""
        pending = self.pending  # may end meanwhile, in another thread
        written = self.saved_label if pending is None else pending
        return not are_equal(label, written)

    def can_try(self) -> bool:
        """Whether a background save may be tried; not shortly after a failure."""
        return time.monotonic() >= self.retry_time

    def mark_saved(self) -> bool:
        """Enter ``SAVED``; returns whether a reported failure preceded."""
        had_failed = self.phase is not AutosavePhase.SAVED
        self.phase, self.retry_time = AutosavePhase.SAVED, 0.0
        return had_failed

    def mark_failed(self, *, retry_later: bool) -> None:
        """Enter ``FAILED``; with ``retry_later`` the next save in the background has to wait."""
        self.phase = AutosavePhase.FAILED
        if retry_later:
            self.retry_time = time.monotonic() + RETRY_INTERVAL_S

    def mark_recovered(self, label: LabelArray) -> None:
        """Enter ``RECOVERED``: a copy of this label has been saved elsewhere."""
        self.phase = AutosavePhase.RECOVERED
        self.saved_label, self.remote_label = label.copy(), None


def are_equal(one: LabelArray, other: LabelArray) -> bool:
    """Compare labels eight voxels at a time: it is done often, and labels can be large."""
    can_be_joined = one.size % 8 == 0 and one.flags.c_contiguous and other.flags.c_contiguous
    if can_be_joined and one.dtype == other.dtype == np.uint8 and one.shape == other.shape:
        one, other = one.reshape(-1).view(np.uint64), other.reshape(-1).view(np.uint64)
    return np.array_equal(one, other)
