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
from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.task_runner import TaskRunner
from napari_dycon.errors import DyconError
from napari_dycon.project.store import Project

RETRY_INTERVAL_S = 30.0  # seconds until a save that failed is tried again by itself
RECOVERY_FOLDER = "napari-dycon-unsaved"
Label = npt.NDArray[np.uint8]


class LabelAutosaver:
    """Saves the label of the case in view.

    Parameters
    ----------
    background : where slow work goes
    saved : called with the view after each save, and whether another window's work came in
    failed : called with what went wrong in a save that nobody waits for
    """

    def __init__(
        self,
        task_runner: TaskRunner,
        on_saved: Callable[[ActiveCase, bool], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._task_runner = task_runner
        self._on_saved = on_saved
        self._on_error = on_error
        self._write_lock = threading.Lock()
        self._retry_time = 0.0
        self.has_failed = False  # the person was told that a save failed, and none went well since

    def save(self, project: Project, case: ActiveCase) -> None:
        """Save when something changed, without making the caller wait."""
        if not case.has_unsaved_changes or time.monotonic() < self._retry_time:
            return
        snapshot, save_number = self._start_save(case)

        def on_error(error: Exception) -> None:
            self._retry_time = time.monotonic() + RETRY_INTERVAL_S
            self.has_failed = True
            self._on_error(error)

        self._task_runner.submit(
            lambda: self._write(project, case, snapshot, save_number),
            lambda written: self._finish_save(case, snapshot, written),
            on_error,
        )

    def flush(self, project: Project, case: ActiveCase) -> None:
        """Save before returning.

        Raises
        ------
        DyconError
            It could not be saved; nothing is dropped.
        """
        if not case.has_unsaved_changes:
            return
        snapshot, save_number = self._start_save(case)
        written = self._write(project, case, snapshot, save_number)
        self._retry_time = 0.0
        self._finish_save(case, snapshot, written)

    def write_recovery_copy(self, case: ActiveCase) -> Path:
        """Write a label that could not be saved into a folder of the person's own."""
        folder = Path.home() / RECOVERY_FOLDER
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise DyconError(f"{folder} cannot be made: {error.strerror}.") from error
        path = folder / f"{case.id}-{time.strftime('%Y%m%d-%H%M%S')}.nii.gz"
        io.write_mask(case.label.copy(), reference=case.image, path=path)
        return path

    def _start_save(self, case: ActiveCase) -> tuple[Label, int]:
        case.save_count += 1
        return case.label.copy(), case.save_count

    def _write(
        self, project: Project, case: ActiveCase, snapshot: Label, save_number: int
    ) -> Label | None:
        """Write one copy; returns what the disk holds now, or nothing if a newer one follows.

        What was drawn here is what differs from ``view.saved``, the copy that was saved last: what
        came from others since then may be on the disk before it is in the window.
        """
        with self._write_lock, project.labels.lock():
            if save_number != case.save_count:
                return None
            label, remote_label = snapshot, self._read_remote_label(project, case)
            if remote_label is not None:
                label = np.where(snapshot != case.saved_label, snapshot, remote_label)
                if np.array_equal(label, snapshot):
                    label = snapshot
            try:
                project.labels.save(case.id, label, reference=case.image)
            except DyconError:
                self._record_version(project, case, label, remote_label)
                raise
            case.label_version = project.labels.version(case.id)
            case.saved_label = snapshot
            case.remote_label = label if label is not snapshot else None
            return label

    @staticmethod
    def _read_remote_label(project: Project, case: ActiveCase) -> Label | None:
        """What the disk holds beside what was saved here last, or ``None`` if it is the same."""
        if project.labels.version(case.id) == case.label_version:
            return case.remote_label
        remote_label = project.labels.read(case.id)
        return (
            remote_label
            if remote_label is not None and remote_label.shape == case.saved_label.shape
            else None
        )

    @staticmethod
    def _record_version(
        project: Project, case: ActiveCase, label: Label, remote_label: Label | None
    ) -> None:
        """After a failed save: a label that came to the disk without its status is our own.

        Taken for another window's, it would bring back what is erased here before the next try.
        """
        label_version = project.labels.version(case.id)
        if label_version is None or label_version == case.label_version:
            return
        with contextlib.suppress(DyconError):
            if np.array_equal(project.labels.read(case.id), label):  # type: ignore[arg-type]
                case.label_version, case.remote_label = label_version, remote_label

    def _finish_save(self, case: ActiveCase, snapshot: Label, written: Label | None) -> None:
        if written is None:
            return
        # A later save that began before this answer came has laid the same in, or newer.
        merged = written is not snapshot and case.saved_label is snapshot
        if merged:  # except where somebody went on painting meanwhile
            is_remote_edit: npt.NDArray[Any] = (written != snapshot) & (case.label == snapshot)
            case.label[is_remote_edit] = written[is_remote_edit]
            case.saved_label = np.where(is_remote_edit, written, snapshot)
        self._on_saved(case, merged)
