"""What the list of cases tells of each: score, Dice, place among the suggestions, a small picture.

Everything is read in the background and kept while the files stay as they are: suggestions first,
Dice a few cases at a time, and pictures of those cases only that the list asks for, as each takes
reading a whole scan.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal
from scipy import ndimage

from napari_dycon import io as image_io
from napari_dycon.application.active_learning import Suggestion
from napari_dycon.core.atomic import ensure_dir, write_bytes
from napari_dycon.core.containment import ensure_within
from napari_dycon.engine.evaluation.label_comparison import compare_structures
from napari_dycon.errors import DyconError
from napari_dycon.project.store import Project

if TYPE_CHECKING:
    from napari_dycon.session import Session

Picture = npt.NDArray[np.uint8]
PICTURE_SIZE = 48  # pixels of the longer side
AT_ONCE = 6  # pictures made before the list is told
BATCH_S = 0.5  # of reading labels and predictions, before the list is told
Stamp = tuple[object, ...]


@dataclass(frozen=True)
class CaseSummary:
    """Of one case; ``dice`` is between its label and its newest prediction, mean over classes."""

    dice: float | None = None
    suggestion: Suggestion | None = None
    picture: Picture | None = None


class CaseSummaries:
    """Summaries of the open project's cases."""

    changed = Signal(frozenset)  # ids of the cases of which something else is known now

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[str, CaseSummary] = {}
        self._dice: dict[str, tuple[Stamp, float | None]] = {}
        self._stale: dict[str, _Pair] = {}  # labels and predictions to compare
        self._wanted: list[str] = []  # pictures
        self._busy = self._again = self._comparing = self._drawing = False
        session.project_changed.connect(self._project_changed)
        session.cases_changed.connect(self.refresh)
        session.runs_changed.connect(self.refresh)

    def of(self, case_id: str) -> CaseSummary:
        """Return what is known of a case so far."""
        return self._known.get(case_id, CaseSummary())

    def request_pictures(self, cases: Sequence[str]) -> None:
        """Draw the pictures of these cases that are missing, instead of those asked for before."""
        self._wanted = [case for case in cases if self.of(case).picture is None]
        self._draw_pictures()

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

        def work() -> tuple[list[Suggestion], dict[str, _Pair]]:
            return suggester.suggest(project), _pairs(project)

        def done(found: tuple[list[Suggestion], dict[str, _Pair]]) -> None:
            self._busy = False
            if self._session.project is project:
                suggested, pairs = found
                self._take_suggestions(project, suggested)
                self._stale = {
                    case: pair
                    for case, pair in pairs.items()
                    if self._dice.get(case, ((), None))[0] != pair.stamp
                }
                self._take_dice(
                    {
                        case.id: self._dice[case.id][1] if case.id in pairs else None
                        for case in project.cases
                        if case.id not in self._stale
                    }
                )
                self._compare()
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
        self._stale.clear()
        self._wanted.clear()

    def _take_suggestions(self, project: Project, suggested: Sequence[Suggestion]) -> None:
        found = {suggestion.case: suggestion for suggestion in suggested}
        self._update({case.id: {"suggestion": found.get(case.id)} for case in project.cases})

    def _take_dice(self, dice: Mapping[str, float | None]) -> None:
        self._update({case: {"dice": value} for case, value in dice.items()})

    def _update(self, changes: Mapping[str, dict[str, Any]]) -> None:
        """Take over what is known now, and tell of which cases that is something else."""
        different = set()
        for case, values in changes.items():
            old = self.of(case)
            if any(getattr(old, name) is not value for name, value in values.items()):
                new = replace(old, **values)
                if new.picture is not old.picture or _words(new) != _words(old):
                    different.add(case)
                self._known[case] = new
        if different:
            self.changed.emit(frozenset(different))

    def _compare(self) -> None:
        """Compare labels and predictions that changed, for a moment at a time."""
        project = self._session.project
        if project is None or not self._stale or self._comparing:
            return
        self._comparing = True
        pairs, values = dict(self._stale), [info.value for info in project.classes]

        def work() -> dict[str, float | None]:
            end, found = time.monotonic() + BATCH_S, {}
            for case, pair in pairs.items():
                found[case] = _mean_dice(project, case, pair.run, values)
                if time.monotonic() > end:
                    break
            return found

        def done(found: dict[str, float | None]) -> None:
            self._comparing = False
            if self._session.project is project:
                for case, dice in found.items():
                    self._dice[case] = pairs[case].stamp, dice
                    if self._stale.get(case) == pairs[case]:
                        del self._stale[case]
                self._take_dice(found)
            self._compare()

        def failed(_: Exception) -> None:
            self._comparing = False

        self._session.background.run(work, done, failed)

    def _draw_pictures(self) -> None:
        """Make the pictures that are asked for, a few at a time."""
        project = self._session.project
        if project is None or not self._wanted or self._drawing:
            return
        self._drawing = True
        part, self._wanted = self._wanted[:AT_ONCE], self._wanted[AT_ONCE:]

        def done(found: dict[str, Picture]) -> None:
            self._drawing = False
            if self._session.project is project:
                self._update({case: {"picture": picture} for case, picture in found.items()})
            self._draw_pictures()

        def failed(_: Exception) -> None:
            self._drawing = False

        self._session.background.run(lambda: _pictures(project, part), done, failed)


@dataclass(frozen=True)
class _Pair:
    """A label and the newest prediction of a case, by the state of their files."""

    run: str
    stamp: Stamp


def _pairs(project: Project) -> dict[str, _Pair]:
    newest = project.newest_predictions()
    found = {}
    for case in project.cases:
        run = newest.get(case.id)
        if run is None or case.status == "unlabeled":
            continue
        path = project.prediction_path(run, case.id)
        found[case.id] = _Pair(run, (project.label_version(case.id), path, path.stat().st_mtime_ns))
    return found


def _words(summary: CaseSummary) -> tuple[object, ...]:
    """What the list writes of a case."""
    return summary.dice, summary.suggestion


def _mean_dice(project: Project, case: str, run: str, values: Sequence[int]) -> float | None:
    try:
        mask = image_io.read_label(project.prediction_path(run, case))
        label = project.read_label(case, reference=mask)
    except DyconError:  # missing, damaged, or on different grids
        return None
    if label is None:
        return None
    rows = compare_structures(label, mask.array, values, (1.0, 1.0, 1.0))
    dice = [row.dice for row in rows if row.dice is not None]
    return float(np.mean(dice)) if dice else None


def _pictures(project: Project, cases: Sequence[str]) -> dict[str, Picture]:
    return {case: _picture(project, case) for case in cases}


def _picture(project: Project, case: str) -> Picture:
    """Read a picture from the project's cache, or draw and keep it there."""
    path: Path = project.path / "cache" / "pictures" / f"{case}.npy"
    try:
        if not ensure_within(
            project.path, path
        ).is_file():  # a pipe would be waited for without end
            raise FileNotFoundError(path)
        kept = np.lib.format.open_memmap(path, mode="r")  # refuses objects and archives
        if kept.dtype == np.uint8 and kept.ndim == 2 and 0 < max(kept.shape) <= PICTURE_SIZE:
            return np.array(kept, dtype=np.uint8)
    except Exception:  # NumPy raises whatever parsing a header meets; drawn anew
        pass
    picture = draw_picture(project, case)
    if project.read_only_reason:
        return picture
    buffer = io.BytesIO()
    np.save(buffer, picture, allow_pickle=False)
    with contextlib.suppress(DyconError):  # a read-only folder; drawn again the next time
        ensure_within(project.path, path)
        ensure_dir(path.parent, existing_root=project.path)
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
