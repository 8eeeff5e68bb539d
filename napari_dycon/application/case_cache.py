"""Cases that were read lately, kept in memory while their files stay as they are.

Going back to a case, or on to the next one, then takes no reading, unpacking and searching. What is
kept is never edited: labels are handed out as copies, the rest is only shown.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict

import psutil

from napari_dycon import io
from napari_dycon.application.active_case import KINDS, CaseView, load_case
from napari_dycon.errors import DyconError
from napari_dycon.project.store import Project

MAX_BYTES = 2**30
SHARE = 1 / 8  # of this machine's memory at most
State = tuple[object, ...]


class CaseCache:
    """Reads cases of one project, each once at a time; for any thread.

    Parameters
    ----------
    most : bytes that may be kept; by default 1 GB, and at most an eighth of the memory
    """

    def __init__(self, most: int | None = None) -> None:
        limit = min(MAX_BYTES, int(SHARE * psutil.virtual_memory().total))
        self._most = limit if most is None else most
        self._kept: OrderedDict[str, tuple[State, CaseView]] = OrderedDict()
        self._lock = threading.Lock()  # of the dictionary
        self._reading: dict[str, threading.Lock] = {}

    def load(self, project: Project, case_id: str) -> CaseView:
        """Read a case as ``load_case`` does, or take what was read before."""
        with self._lock:
            reading = self._reading.setdefault(case_id, threading.Lock())
        with reading:  # a second one waits for the first, and takes what that has read
            state = case_state(project, case_id)
            with self._lock:
                kept = self._kept.get(case_id)
                if kept is not None and state is not None and kept[0] == state:
                    self._kept.move_to_end(case_id)
                    return _handed_out(kept[1])
            view = load_case(project, case_id)
            if state is not None:
                self._keep(case_id, state, view)
            return view

    def has_room_for(self, view: CaseView) -> bool:
        """Whether a case of this size is kept: a larger one would push out all others."""
        return _size(view) <= self._most // 2

    def _keep(self, case_id: str, state: State, view: CaseView) -> None:
        kept = dataclasses.replace(view, label=view.saved)
        if not self.has_room_for(kept):
            return
        with self._lock:
            self._kept[case_id] = state, kept
            self._kept.move_to_end(case_id)
            while sum(_size(old) for _, old in self._kept.values()) > self._most:
                self._kept.popitem(last=False)


def case_state(project: Project, case_id: str) -> State | None:
    """State of all files that make up a case in view; ``None`` where that cannot be told."""
    case = project.get_case(case_id)
    try:
        scans = tuple(io.scan_fingerprint(path) for path in project.image_paths(case_id))
        run = next(iter(project.predictions(case_id)), None)
        predicted: list[object] = []
        for path in [project.prediction_path(run, case_id, kind) for kind in KINDS] if run else ():
            found = path.stat() if path.exists() else None
            predicted.append(found and (found.st_mtime_ns, found.st_size, found.st_ino))
    except (OSError, DyconError):
        return None
    label = project.label_version(case_id)
    return (case.images, case.resampled, scans, label, run, tuple(predicted))


def _handed_out(kept: CaseView) -> CaseView:
    return dataclasses.replace(
        kept, label=kept.saved.copy(), notes=list(kept.notes), gray=list(kept.gray)
    )


def _size(view: CaseView) -> int:
    arrays = (view.image.array, view.saved, view.prediction, view.uncertainty, view.disagreement)
    return sum(array.nbytes for array in arrays if array is not None)
