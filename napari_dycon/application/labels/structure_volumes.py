"""Volume of each structure in the active label, computed in the background after edits."""

from __future__ import annotations

import numpy as np
from psygnal import Signal

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.state import AppState
from napari_dycon.application.task_runner import TaskRunner
from napari_dycon.engine.evaluation.label_comparison import count_label_values

Volumes = dict[int, float]


class StructureVolumes:
    """Volumes of the structures of the active case in ml, by value.

    One computation at a time; edits made meanwhile lead to another one.
    """

    changed = Signal(object)  # Volumes

    def __init__(self, state: AppState, task_runner: TaskRunner) -> None:
        self._state = state
        self._task_runner = task_runner
        self._is_computing = self._needs_update = False
        self.volumes_ml: Volumes = {}
        state.case_shown.connect(self._on_case_shown)
        state.label_edited.connect(self.update)
        state.label_saved.connect(self.update)  # the brush is saved about a second later

    def update(self, *_: object) -> None:
        """Compute the volumes of the active label again."""
        case = self._state.case
        if case is None:
            return
        if self._is_computing:
            self._needs_update = True
            return
        self._is_computing, self._needs_update = True, False

        def on_done(volumes: Volumes) -> None:
            self._is_computing = False
            if self._state.case is case:
                self._set(volumes)
            if self._needs_update:
                self.update()

        def on_error(error: Exception) -> None:
            self._is_computing = False
            self._state.report_error(error)

        self._task_runner.submit(lambda: compute_volumes_ml(case), on_done, on_error)

    def _on_case_shown(self, case: ActiveCase | None) -> None:
        self._set({})
        if case is not None:
            self._needs_update = True
            self.update()

    def _set(self, volumes: Volumes) -> None:
        if volumes != self.volumes_ml:
            self.volumes_ml = volumes
            self.changed.emit(volumes)


def compute_volumes_ml(case: ActiveCase) -> Volumes:
    """Compute the volume of every value that occurs in a label, in ml."""
    voxel_ml = float(np.prod(case.image.spacing_mm)) / 1000.0
    counts = count_label_values(case.label)
    return {int(value): float(counts[value]) * voxel_ml for value in np.flatnonzero(counts)}
