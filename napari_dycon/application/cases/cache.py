"""Cache of recently read cases, valid while their files are unchanged.

Switching between cases then needs no reading and decompression. Cached arrays are never edited:
labels are returned as copies, the rest is read-only.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections import OrderedDict

import psutil

from napari_dycon import io
from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.cases.loading import (
    PREDICTION_KINDS,
    LoadedCase,
    State,
    load_case,
    load_prediction,
)
from napari_dycon.errors import DyconError
from napari_dycon.project.store import Project

MAX_CACHE_BYTES = 2**30
MAX_MEMORY_FRACTION = 1 / 8  # of this machine's memory at most


class CaseCache:
    """Reads cases of one project, each once at a time; for any thread.

    Parameters
    ----------
    max_bytes : size of the cache; by default 1 GB, and at most an eighth of the memory
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        limit = min(MAX_CACHE_BYTES, int(MAX_MEMORY_FRACTION * psutil.virtual_memory().total))
        self._max_bytes = limit if max_bytes is None else max_bytes
        self._cases: OrderedDict[str, LoadedCase] = OrderedDict()
        self._lock = threading.Lock()  # of the dictionary
        self._case_locks: dict[str, threading.Lock] = {}

    def load(self, project: Project, case_id: str, max_voxels: float = math.inf) -> LoadedCase:
        """Return a case from the cache, or read it with ``load_case``."""
        with self._lock_case(case_id):  # a second request waits for the first and uses its result
            state = compute_case_state(project, case_id)
            with self._lock:
                cached = self._cases.get(case_id)
                if cached is not None and state is not None and cached.state == state:
                    self._cases.move_to_end(case_id)
                    return _copy_cached(cached)
            loaded = dataclasses.replace(load_case(project, case_id, max_voxels), state=state)
            self._store(loaded)
            return loaded

    def load_pending_prediction(self, project: Project, loaded: LoadedCase) -> ActiveCase:
        """Read the prediction that ``load`` left out, into a copy of the case."""
        case = dataclasses.replace(loaded.case, notes=[], is_prediction_pending=False)
        with self._lock_case(case.id):
            load_prediction(project, case)
            self._store(dataclasses.replace(loaded, case=case))
        return case

    def has_room_for(self, case: ActiveCase) -> bool:
        """Whether a case of this size is cached; a larger one would evict all others."""
        return _count_bytes(case) <= self._max_bytes // 2

    def _lock_case(self, case_id: str) -> threading.Lock:
        with self._lock:
            return self._case_locks.setdefault(case_id, threading.Lock())

    def _store(self, loaded: LoadedCase) -> None:
        is_complete = not loaded.case.is_prediction_pending
        if not is_complete or loaded.state is None or not self.has_room_for(loaded.case):
            return
        # The label that is shown is edited.
        case = dataclasses.replace(loaded.case, label=loaded.saved_label)
        with self._lock:
            self._cases[case.id] = dataclasses.replace(loaded, case=case)
            self._cases.move_to_end(case.id)
            while sum(_count_bytes(old.case) for old in self._cases.values()) > self._max_bytes:
                self._cases.popitem(last=False)


def compute_case_state(project: Project, case_id: str) -> State | None:
    """State of all files of a case; ``None`` if it cannot be determined."""
    case = project.get_case(case_id)
    try:
        scan_fingerprints = tuple(
            io.scan_fingerprint(path) for path in project.image_paths(case_id)
        )
        newest = project.predictions.find_newest(case_id)
        prediction_states: list[object] = []
        for path in (
            [
                project.predictions.path(newest.run, case_id, kind, stage=newest.stage)
                for kind in PREDICTION_KINDS
            ]
            if newest
            else ()
        ):
            file_stat = path.stat() if path.exists() else None
            prediction_states.append(
                file_stat and (file_stat.st_mtime_ns, file_stat.st_size, file_stat.st_ino)
            )
    except (OSError, DyconError):
        return None
    label = project.labels.version(case_id)
    classes = tuple(info.value for info in project.classes)  # deleted ones are not predicted
    scan = (case.images, case.resampled, scan_fingerprints)
    return (*scan, label, newest, tuple(prediction_states), classes)


def _copy_cached(cached: LoadedCase) -> LoadedCase:
    case = dataclasses.replace(
        cached.case,
        label=cached.saved_label.copy(),
        notes=list(cached.case.notes),
        intensity_ranges=list(cached.case.intensity_ranges),
    )
    return dataclasses.replace(cached, case=case)


def _count_bytes(case: ActiveCase) -> int:
    arrays = (
        case.image.array,
        case.label,
        case.prediction,
        case.uncertainty,
        case.disagreement,
    )
    return sum(array.nbytes for array in arrays if array is not None)
