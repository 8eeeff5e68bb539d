"""Autosave of labels, with a three-way merge of edits by other sessions.

A save works on a copy of the label, and one session writes at a time. If another session changed
the same label in the meantime, local edits are merged over remote ones, so that neither is lost. A
label that cannot be saved can be written to the user's home folder. ``autosave_state.py`` describes
the phases.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_dycon import io
from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.labels.autosave_state import AutosaveState
from napari_dycon.application.state import AppState
from napari_dycon.application.task_runner import TaskRunner
from napari_dycon.core.types import LabelArray, Mask
from napari_dycon.errors import DyconError
from napari_dycon.project.models import Case, ClassInfo
from napari_dycon.project.store import Project

RECOVERY_FOLDER = "napari-dycon-recovered-labels"


@dataclass(frozen=True)
class _Save:
    """One save: a copy of a label and its sequence number.

    ``listed`` are structures and cases of the project when it started.
    """

    project: Project
    case: ActiveCase
    autosave: AutosaveState
    snapshot: LabelArray
    number: int
    listed: tuple[list[ClassInfo], list[Case]]

    @property
    def is_superseded(self) -> bool:
        """Whether a newer save of the same label was started."""
        return self.number != self.autosave.save_count

    def end(self) -> None:
        """Note that the save succeeded, failed, or was superseded."""
        if self.autosave.pending is self.snapshot:
            self.autosave.pending = None


class LabelAutosaver:
    """Saves the label of the active case.

    A started save completes with the state of its own case, even if another case is active by then.
    """

    def __init__(self, state: AppState, task_runner: TaskRunner) -> None:
        self._state = state
        self._task_runner = task_runner
        self._autosave: AutosaveState | None = None  # of the active case
        self._write_lock = threading.Lock()
        self._is_copying = self._needs_copy = False
        state.project_closed.connect(self._on_project_closed)

    def track(self, autosave: AutosaveState) -> None:
        """Start saving the case that was loaded together with this state."""
        self._autosave = autosave

    @property
    def has_unsaved_changes(self) -> bool:
        """Whether the active label was changed since its last save."""
        case, autosave = self._state.case, self._autosave
        return (
            case is not None and autosave is not None and autosave.has_unsaved_changes(case.label)
        )

    # ---- Three ways to keep a label ----------------------------------------------------------

    def save(self) -> None:
        """Save in the background if something changed; failures are reported.

        The label is compared and copied in the background, too: that of a large scan would block
        the window. What is painted meanwhile may be in the copy in part; the next save has it all.
        """
        case, autosave = self._state.case, self._autosave
        if case is None or autosave is None or not autosave.can_try():
            return
        if self._is_copying:
            self._needs_copy = True
            return
        count = autosave.save_count
        self._is_copying, self._needs_copy = True, False

        def copy_changed() -> LabelArray | None:
            return case.label.copy() if autosave.needs_save(case.label) else None

        def on_copied(snapshot: LabelArray | None) -> None:
            self._is_copying = False
            is_outdated = self._state.case is not case or autosave.save_count != count
            if snapshot is not None and not is_outdated:
                self._submit_save(snapshot)
            if self._needs_copy:
                self.save()

        def on_error(error: Exception) -> None:
            self._is_copying = False
            self._state.report_error(error)

        self._task_runner.submit(copy_changed, on_copied, on_error)

    def _submit_save(self, snapshot: LabelArray) -> None:
        save = self._start_save(snapshot)
        if save is None:
            return

        def on_error(error: Exception) -> None:
            save.end()
            save.autosave.mark_failed(retry_later=True)
            self._state.report_error(error)

        self._task_runner.submit(
            lambda: self._write(save), lambda written: self._finish_save(save, written), on_error
        )

    def flush(self) -> None:
        """Save before returning, also shortly after a save that failed.

        Raises
        ------
        DyconError
            The label could not be saved; this was reported, and nothing is dropped.
        """
        case, autosave = self._state.case, self._autosave
        if case is None or autosave is None:
            return
        if autosave.pending is None and not autosave.needs_save(case.label):
            return
        save = self._start_save(case.label.copy())
        if save is None:
            return
        try:
            written = self._write(save)
        except Exception as error:
            save.end()
            save.autosave.mark_failed(retry_later=False)
            self._state.report_error(error)
            if isinstance(error, DyconError):
                raise
            text = f"The label of {save.case.display_name} could not be saved. It is kept."
            raise DyconError(text) from error  # callers must not drop the label
        self._finish_save(save, written)

    def save_recovery_copy(self) -> None:
        """Write a label that cannot be saved to the user's home folder, and report the path."""
        case, autosave = self._state.case, self._autosave
        if case is None or autosave is None or not self.has_unsaved_changes:
            return
        path = self.write_recovery_copy(case)
        autosave.mark_recovered(case.label)
        self._state.message.emit(
            "warning", f"A recovery copy of the label of {case.display_name} was saved to {path}."
        )

    def write_recovery_copy(self, case: ActiveCase) -> Path:
        """Write a label to the recovery folder in the user's home folder."""
        folder = Path.home() / RECOVERY_FOLDER
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise DyconError(f"{folder} cannot be created: {error.strerror}.") from error
        path = folder / f"{case.id}-{time.strftime('%Y%m%d-%H%M%S')}.nii.gz"
        io.write_mask(case.label.copy(), reference=case.image, path=path)
        return path

    # ---- One save ----------------------------------------------------------------------------

    def _start_save(self, snapshot: LabelArray) -> _Save | None:
        """Begin to save a copy of the active label; ``None`` if nothing can be saved."""
        project, case, autosave = self._state.project, self._state.case, self._autosave
        if project is None or case is None or autosave is None or project.read_only_reason:
            return None
        autosave.save_count += 1
        autosave.pending = snapshot
        listed = project.classes, project.cases
        return _Save(project, case, autosave, snapshot, autosave.save_count, listed)

    def _write(self, save: _Save) -> LabelArray | None:
        """Write one copy; returns the label on disk, or ``None`` if a newer save follows.

        Local edits are the differences from ``saved_label``, the last saved copy: remote edits may
        be on disk before they are shown in the window.
        """
        project, case, autosave, snapshot = save.project, save.case, save.autosave, save.snapshot
        with self._write_lock, project.labels.lock():
            if save.is_superseded:
                return None
            label, remote_label = snapshot, _read_remote_label(save)
            if remote_label is not None:
                label = np.where(snapshot != autosave.saved_label, snapshot, remote_label)
                if np.array_equal(label, snapshot):
                    label = snapshot
            try:
                project.labels.save(case.id, label, reference=case.image)
            except DyconError:
                _record_version(save, label, remote_label)
                raise
            autosave.label_version = project.labels.version(case.id)
            autosave.saved_label = snapshot
            autosave.remote_label = label if label is not snapshot else None
            return label

    def _finish_save(self, save: _Save, written: LabelArray | None) -> None:
        """Merge remote edits and report; on the caller's thread."""
        save.end()
        if written is None:
            return
        had_failed = save.autosave.mark_saved()
        # A later save that started meanwhile has already merged the same or newer edits.
        is_merged = written is not save.snapshot and save.autosave.saved_label is save.snapshot
        if is_merged:
            self._merge_remote_edits(save, written)
            self._state.label_edited.emit(save.case.id)
            self._state.message.emit(
                "warning",
                f"The label of {save.case.display_name} was also changed in another session; both "
                "edits were merged.",
            )
        if had_failed:
            self._state.message.emit(
                "info",
                f"The label of {save.case.display_name} has now been saved; nothing was lost.",
            )
        self._state.label_saved.emit(save.case.id)
        listed = save.project.classes, save.project.cases
        if listed != save.listed:  # its status, or what another session changed
            self._state.cases_changed.emit()

    @staticmethod
    def _merge_remote_edits(save: _Save, written: LabelArray) -> None:
        """Merge remote edits into the label, except where it was edited meanwhile."""
        snapshot, label = save.snapshot, save.case.label
        is_remote_edit: Mask = (written != snapshot) & (label == snapshot)
        label[is_remote_edit] = written[is_remote_edit]
        save.autosave.saved_label = np.where(is_remote_edit, written, snapshot)

    def _on_project_closed(self) -> None:
        self._autosave = None


def _read_remote_label(save: _Save) -> LabelArray | None:
    """Read the label on disk if another session changed it; otherwise ``None``."""
    project, case_id, autosave = save.project, save.case.id, save.autosave
    if project.labels.version(case_id) == autosave.label_version:
        return autosave.remote_label
    remote_label = project.labels.read(case_id)
    if remote_label is None or remote_label.shape != autosave.saved_label.shape:
        return None
    return remote_label


def _record_version(save: _Save, label: LabelArray, remote_label: LabelArray | None) -> None:
    """Record a label as our own that was written although saving its status failed.

    Otherwise it would count as a remote edit and restore what is erased before the next try.
    """
    project, case_id, autosave = save.project, save.case.id, save.autosave
    label_version = project.labels.version(case_id)
    if label_version is None or label_version == autosave.label_version:
        return
    with contextlib.suppress(DyconError):
        if np.array_equal(project.labels.read(case_id), label):  # type: ignore[arg-type]
            autosave.label_version, autosave.remote_label = label_version, remote_label
