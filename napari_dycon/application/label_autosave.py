"""Keeps what people draw safe: saved off the caller's thread, merged with what others saved.

A save works on a copy of the label, and one window or machine writes at a time. When another one
changed the same label in the meantime, what was drawn here is laid over what was drawn there, so
that neither is lost. What cannot be saved at all can be rescued to the person's home folder.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dycon import io
from napari_dycon.application.active_case import CaseView
from napari_dycon.application.task_runner import Background
from napari_dycon.errors import DyconError
from napari_dycon.project.store import Project

RETRY_AFTER = 30.0  # seconds until a save that failed is tried again by itself
RESCUE_FOLDER = "napari-dycon-unsaved"
Label = npt.NDArray[np.uint8]


class LabelKeeper:
    """Saves the label of the case in view.

    Parameters
    ----------
    background : where slow work goes
    saved : called with the view after each save, and whether another window's work came in
    failed : called with what went wrong in a save that nobody waits for
    """

    def __init__(
        self,
        background: Background,
        saved: Callable[[CaseView, bool], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._background = background
        self._saved = saved
        self._failed = failed
        self._writing = threading.Lock()
        self._not_before = 0.0
        self.in_trouble = False  # the person was told that a save failed, and none went well since

    def save(self, project: Project, view: CaseView) -> None:
        """Save when something changed, without making the caller wait."""
        if not view.unsaved or time.monotonic() < self._not_before:
            return
        snapshot, number = self._begin(view)

        def failed(error: Exception) -> None:
            self._not_before = time.monotonic() + RETRY_AFTER
            self.in_trouble = True
            self._failed(error)

        self._background.run(
            lambda: self._write(project, view, snapshot, number),
            lambda written: self._done(view, snapshot, written),
            failed,
        )

    def flush(self, project: Project, view: CaseView) -> None:
        """Save before returning.

        Raises
        ------
        DyconError
            It could not be saved; nothing is dropped.
        """
        if not view.unsaved:
            return
        snapshot, number = self._begin(view)
        written = self._write(project, view, snapshot, number)
        self._not_before = 0.0
        self._done(view, snapshot, written)

    def rescue(self, view: CaseView) -> Path:
        """Write a label that could not be saved into a folder of the person's own."""
        folder = Path.home() / RESCUE_FOLDER
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise DyconError(f"{folder} cannot be made: {error.strerror}.") from error
        path = folder / f"{view.id}-{time.strftime('%Y%m%d-%H%M%S')}.nii.gz"
        io.write_mask(view.label.copy(), reference=view.image, path=path)
        return path

    def _begin(self, view: CaseView) -> tuple[Label, int]:
        view.saves += 1
        return view.label.copy(), view.saves

    def _write(
        self, project: Project, view: CaseView, snapshot: Label, number: int
    ) -> Label | None:
        """Write one copy; returns what the disk holds now, or nothing if a newer one follows.

        What was drawn here is what differs from ``view.saved``, the copy that was saved last: what
        came from others since then may be on the disk before it is in the window.
        """
        with self._writing, project.lock_labels():
            if number != view.saves:
                return None
            label, theirs = snapshot, self._theirs(project, view)
            if theirs is not None:
                label = np.where(snapshot != view.saved, snapshot, theirs)
                if np.array_equal(label, snapshot):
                    label = snapshot
            try:
                project.save_label(view.id, label, reference=view.image)
            except DyconError:
                self._note_own(project, view, label, theirs)
                raise
            view.stamp = project.label_version(view.id)
            view.saved = snapshot
            view.others = label if label is not snapshot else None
            return label

    @staticmethod
    def _theirs(project: Project, view: CaseView) -> Label | None:
        """What the disk holds beside what was saved here last, or ``None`` if it is the same."""
        if project.label_version(view.id) == view.stamp:
            return view.others
        theirs = project.read_label(view.id)
        return theirs if theirs is not None and theirs.shape == view.saved.shape else None

    @staticmethod
    def _note_own(project: Project, view: CaseView, label: Label, theirs: Label | None) -> None:
        """After a failed save: a label that came to the disk without its status is our own.

        Taken for another window's, it would bring back what is erased here before the next try.
        """
        stamp = project.label_version(view.id)
        if stamp is None or stamp == view.stamp:
            return
        with contextlib.suppress(DyconError):
            if np.array_equal(project.read_label(view.id), label):  # type: ignore[arg-type]
                view.stamp, view.others = stamp, theirs

    def _done(self, view: CaseView, snapshot: Label, written: Label | None) -> None:
        if written is None:
            return
        # A later save that began before this answer came has laid the same in, or newer.
        merged = written is not snapshot and view.saved is snapshot
        if merged:  # except where somebody went on painting meanwhile
            came: npt.NDArray[Any] = (written != snapshot) & (view.label == snapshot)
            view.label[came] = written[came]
            view.saved = np.where(came, written, snapshot)
        self._saved(view, merged)
