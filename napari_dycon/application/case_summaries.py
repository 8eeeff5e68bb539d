"""What the list of cases tells of each: score, Dice, place among the suggestions, a small picture.

Everything is read in the background and kept while the files stay as they are.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from psygnal import Signal
from scipy import ndimage

from napari_dycon.application.suggestions import Suggestion
from napari_dycon.engine.comparison import compare
from napari_dycon.errors import DyconError
from napari_dycon.project import formats
from napari_dycon.project.atomic import make_folder, write_bytes
from napari_dycon.project.links import inside
from napari_dycon.project.store import Project

if TYPE_CHECKING:
    from napari_dycon.session import Session

Picture = npt.NDArray[np.uint8]
PICTURE_SIZE = 48  # pixels of the longer side
AT_ONCE = 6  # pictures made before the list is told
Stamp = tuple[object, ...]


@dataclass(frozen=True)
class CaseSummary:
    """Of one case; ``dice`` is between its label and its newest prediction, mean over classes."""

    dice: float | None = None
    suggestion: Suggestion | None = None
    picture: Picture | None = None


class CaseSummaries:
    """Summaries of the open project's cases."""

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[str, CaseSummary] = {}
        self._dice: dict[str, tuple[Stamp, float | None]] = {}
        self._busy = self._again = self._drawing = False
        session.project_changed.connect(self._project_changed)
        session.cases_changed.connect(self.refresh)
        session.runs_changed.connect(self.refresh)

    def of(self, case_id: str) -> CaseSummary:
        """Return what is known of a case so far."""
        return self._known.get(case_id, CaseSummary())

    def refresh(self, *_: object) -> None:
        """Read again what may have changed; one reading at a time."""
        project = self._session.project
        if project is None:
            return
        if self._busy:
            self._again = True
            return
        self._busy = True

        suggester = self._session.suggester

        def work() -> tuple[dict[str, float | None], list[Suggestion]]:
            return self._read_dice(project), suggester.suggest(project)

        def done(found: tuple[dict[str, float | None], list[Suggestion]]) -> None:
            self._busy = False
            if self._session.project is project:
                dice, suggested = found
                places = {s.case: s for s in suggested}
                for case in project.cases:
                    self._known[case.id] = replace(
                        self.of(case.id),
                        dice=dice.get(case.id),
                        suggestion=places.get(case.id),
                    )
                self.changed.emit()
                self._draw_pictures(project)
            self._repeat()

        def failed(_: Exception) -> None:  # of files that somebody else is changing; next time
            self._busy = False
            self._again = False

        self._session.background.run(work, done, failed)

    def _repeat(self) -> None:
        if self._again:
            self._again = False
            self.refresh()

    def _project_changed(self, _: object) -> None:
        self._known.clear()
        self._dice.clear()

    def _read_dice(self, project: Project) -> dict[str, float | None]:
        values = [info.value for info in project.classes]
        found: dict[str, float | None] = {}
        newest = project.newest_predictions()
        for case in project.cases:
            run = newest.get(case.id)
            if run is None or case.status == "unlabelled":
                continue
            path = project.prediction_path(run, case.id)
            stamp: Stamp = (project.label_stamp(case.id), path, path.stat().st_mtime_ns)
            if self._dice.get(case.id, ((), None))[0] != stamp:
                self._dice[case.id] = stamp, _mean_dice(project, case.id, run, values)
            found[case.id] = self._dice[case.id][1]
        return found

    def _draw_pictures(self, project: Project) -> None:
        """Make missing pictures, a few at a time."""
        missing = [case.id for case in project.cases if self.of(case.id).picture is None]
        if not missing or self._drawing:
            return
        self._drawing = True

        def done(found: dict[str, Picture]) -> None:
            self._drawing = False
            if self._session.project is project and found:
                for case, picture in found.items():
                    self._known[case] = replace(self.of(case), picture=picture)
                self.changed.emit()
                self._draw_pictures(project)

        def failed(_: Exception) -> None:
            self._drawing = False

        part = missing[:AT_ONCE]
        self._session.background.run(lambda: _pictures(project, part), done, failed)


def _mean_dice(project: Project, case: str, run: str, values: Sequence[int]) -> float | None:
    try:
        mask = formats.read_label(project.prediction_path(run, case))
        label = project.read_label(case, like=mask)
    except DyconError:  # missing, damaged, or on different grids
        return None
    if label is None:
        return None
    rows = compare(label, mask.array, values, (1.0, 1.0, 1.0))
    dice = [row.dice for row in rows if row.dice is not None]
    return float(np.mean(dice)) if dice else None


def _pictures(project: Project, cases: Sequence[str]) -> dict[str, Picture]:
    return {case: _picture(project, case) for case in cases}


def _picture(project: Project, case: str) -> Picture:
    """Read a picture from the project's cache, or draw and keep it there."""
    path: Path = project.path / "cache" / "pictures" / f"{case}.npy"
    try:
        if not inside(project.path, path).is_file():  # a pipe would be waited for without end
            raise FileNotFoundError(path)
        kept = np.lib.format.open_memmap(path, mode="r")  # refuses objects and archives
        if kept.dtype == np.uint8 and kept.ndim == 2 and 0 < max(kept.shape) <= PICTURE_SIZE:
            return np.array(kept, dtype=np.uint8)
    except Exception:  # NumPy raises whatever parsing a header meets; drawn anew
        pass
    picture = draw_picture(project, case)
    if project.read_only:
        return picture
    buffer = io.BytesIO()
    np.save(buffer, picture, allow_pickle=False)
    with contextlib.suppress(DyconError):  # a read-only folder; drawn again the next time
        inside(project.path, path)
        make_folder(path.parent, within=project.path)
        write_bytes(path, buffer.getvalue())
    return picture


def draw_picture(project: Project, case: str) -> Picture:
    """Draw the middle slice of a scan's first channel, in its true proportions; (H, W)."""
    try:
        volume = project.read_image(case)
    except DyconError:
        return np.zeros((PICTURE_SIZE, PICTURE_SIZE), np.uint8)
    first = volume.array if volume.array.ndim == 3 else volume.array[0]
    middle = np.asarray(first[len(first) // 2], dtype=np.float32)
    low, high = np.quantile(middle, (0.005, 0.995))
    size_mm = np.multiply(middle.shape, volume.spacing_mm[1:])
    wanted = np.maximum(np.round(size_mm / size_mm.max() * PICTURE_SIZE), 1)
    small = ndimage.zoom(middle, wanted / middle.shape, order=1)[:PICTURE_SIZE, :PICTURE_SIZE]
    scaled = np.clip((small - low) / max(float(high - low), 1e-6), 0, 1) * 255
    return np.asarray(scaled, dtype=np.uint8)
