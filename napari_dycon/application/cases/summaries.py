"""Summaries for the list of cases: Dice, suggested rank and thumbnail.

Everything is read in the background and cached while the files are unchanged: suggestions first,
Dice a few cases at a time, and thumbnails only on request, since each needs reading a whole scan.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from psygnal import Signal

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.active_learning import ActiveLearning, Suggestion
from napari_dycon.application.cases.active_agreement import ActiveAgreement
from napari_dycon.application.cases.case_dice import (
    NO_DICE,
    CaseDice,
    ComparedFiles,
    compute_case_dice,
    find_compared_files,
    find_older_runs,
    get_case_dice,
)
from napari_dycon.application.cases.thumbnails import Thumbnail, load_thumbnails
from napari_dycon.application.state import AppState
from napari_dycon.application.task_runner import TaskRunner
from napari_dycon.project.store import Project

THUMBNAIL_BATCH = 6  # thumbnails drawn before the list is updated
BATCH_S = 0.5  # spent comparing before the list is updated
OLDER_TIP = "By run {run}, not by the newest run that predicted cases. Predict again to compare"
PENDING_TEXT = "…"
PENDING = CaseDice(None, "The prediction is new; its Dice is being computed")


@dataclass(frozen=True)
class CaseSummary:
    """Summary of one case.

    ``dice`` compares label and newest prediction, averaged over classes; it is ``None`` where it
    would say nothing, and ``dice_note`` says why. ``older_run`` is the run of the prediction if a
    newer run predicted other cases, so that their values are not comparable.
    """

    dice: float | None = None
    dice_note: str = ""
    older_run: str = ""
    suggestion: Suggestion | None = None
    thumbnail: Thumbnail | None = None

    @property
    def dice_text(self) -> str:
        """The Dice as the list shows it."""
        if self.dice is not None:
            return f"{self.dice:.2f}{self.older_mark}"
        if self.dice_note == PENDING.note:
            return PENDING_TEXT
        return "–" if self.dice_note else ""

    @property
    def dice_tip(self) -> str:
        """Why there is no Dice, or why it is not comparable."""
        return self.dice_note or (self.older_tip if self.dice is not None else "")

    @property
    def older_mark(self) -> str:
        """Mark of values that are not comparable with those of other cases."""
        return "*" if self.older_run else ""

    @property
    def older_tip(self) -> str:
        """What the mark means."""
        return OLDER_TIP.format(run=self.older_run) if self.older_run else ""


class _ReadSummaries(NamedTuple):
    """What is read of all cases at once; pairs and older runs by case id."""

    suggestions: list[Suggestion]
    pairs: dict[str, ComparedFiles]
    older: dict[str, str]


class CaseSummaries:
    """Summaries of the open project's cases."""

    changed = Signal(frozenset)  # ids of cases whose summary changed

    def __init__(
        self,
        state: AppState,
        task_runner: TaskRunner,
        active_learning: ActiveLearning,
        active_agreement: ActiveAgreement,
    ) -> None:
        self._state = state
        self._active_agreement = active_agreement
        self._task_runner = task_runner
        self._active_learning = active_learning
        self._summaries: dict[str, CaseSummary] = {}
        self._dice: dict[str, tuple[ComparedFiles, CaseDice]] = {}
        self._pairs: dict[str, ComparedFiles] = {}  # as last found
        self._stale_pairs: dict[str, ComparedFiles] = {}  # to compare
        self._requested: list[str] = []  # thumbnails
        self._saved_case: str | None = None  # active, saved since its agreement was measured
        self._is_refreshing = self._needs_refresh = self._is_comparing = self._is_drawing = False
        state.project_changed.connect(self._on_project_changed)
        state.cases_changed.connect(self.refresh)
        state.runs_changed.connect(self.refresh)
        state.label_saved.connect(self._on_label_saved)
        state.case_shown.connect(self._on_case_shown)
        active_agreement.changed.connect(self._take_active_agreement)

    def get(self, case_id: str) -> CaseSummary:
        """Return the summary of a case as far as it is known."""
        return self._summaries.get(case_id, CaseSummary())

    def request_thumbnails(self, cases: Sequence[str]) -> None:
        """Draw missing thumbnails of these cases, instead of those requested before."""
        self._requested = [case for case in cases if self.get(case).thumbnail is None]
        self._draw_thumbnails()

    def refresh(self, *_: object) -> None:
        """Reread what may have changed; one read at a time."""
        project = self._state.project
        if project is None:
            return
        if self._is_refreshing:
            self._needs_refresh = True
            return
        self._is_refreshing = True
        suggester = self._active_learning.suggester

        def read_summaries() -> _ReadSummaries:
            newest = project.predictions.newest_run_ids()
            return _ReadSummaries(
                suggester.suggest(project),
                find_compared_files(project, newest),
                find_older_runs(project, newest),
            )

        def on_done(result: _ReadSummaries) -> None:
            self._is_refreshing = False
            if self._state.project is project:
                self._store_suggestions(project, result.suggestions)
                older = {case.id: result.older.get(case.id, "") for case in project.cases}
                self._update({case: {"older_run": run} for case, run in older.items()})
                self._store_known_dice(project, result.pairs)
                self._compare_labels()
            self._schedule_refresh()

        def on_error(_: Exception) -> None:  # files are changed elsewhere; try again later
            self._is_refreshing = False
            self._needs_refresh &= self._state.project is not project
            self._schedule_refresh()

        self._task_runner.submit_when_idle("summaries", read_summaries, on_done, on_error)

    def _store_known_dice(self, project: Project, pairs: dict[str, ComparedFiles]) -> None:
        """Show what was computed before, and nothing of a prediction that was replaced."""
        self._pairs = pairs
        self._take_active_agreement()
        known = {case: found for case, found in self._dice.items() if case in pairs}
        self._stale_pairs = {
            case: pair
            for case, pair in pairs.items()
            if case not in known or known[case][0] != pair
        }
        dice = {
            case.id: known[case.id][1] if case.id in pairs else NO_DICE
            for case in project.cases
            if case.id not in self._stale_pairs
        }
        for case, pair in self._stale_pairs.items():
            if case in known and known[case][0].prediction != pair.prediction:
                dice[case] = PENDING
        self._store_dice(dice)

    def _take_active_agreement(self) -> None:
        """Take the Dice of the active case from memory, instead of reading its files."""
        case = self._state.case
        active = self._active_agreement
        if case is None or case.stage != "complete" or active.is_outdated:
            return
        pair, agreement = self._pairs.get(case.id), active.get_agreement(case)
        if pair is None or pair.run != case.run or agreement is None:
            return
        dice = get_case_dice(agreement)
        self._dice[case.id] = pair, dice
        self._stale_pairs.pop(case.id, None)
        self._store_dice({case.id: dice})
        self._saved_case = None

    def _on_label_saved(self, case_id: str) -> None:
        """Read the label of a case that is not shown any more; the active one is in memory."""
        self._saved_case = case_id
        self._on_case_shown(self._state.case)

    def _on_case_shown(self, case: ActiveCase | None) -> None:
        if self._saved_case is not None and (case is None or case.id != self._saved_case):
            self._saved_case = None
            self.refresh()

    def _schedule_refresh(self) -> None:
        if self._needs_refresh:
            self._needs_refresh = False
            self.refresh()

    def _on_project_changed(self, _: object) -> None:
        self._summaries.clear()
        self._dice.clear()
        self._pairs.clear()
        self._stale_pairs.clear()
        self._requested.clear()

    def _store_suggestions(self, project: Project, suggestions: Sequence[Suggestion]) -> None:
        suggestion_by_case = {suggestion.case: suggestion for suggestion in suggestions}
        self._update(
            {case.id: {"suggestion": suggestion_by_case.get(case.id)} for case in project.cases}
        )

    def _store_dice(self, dice: Mapping[str, CaseDice]) -> None:
        self._update(
            {case: {"dice": found.value, "dice_note": found.note} for case, found in dice.items()}
        )

    def _update(self, changes: Mapping[str, dict[str, Any]]) -> None:
        """Apply changes and emit the ids of cases that are displayed differently."""
        changed_cases = set()
        for case, values in changes.items():
            old = self.get(case)
            if any(getattr(old, name) is not value for name, value in values.items()):
                new = replace(old, **values)
                if new.thumbnail is not old.thumbnail or _get_displayed_values(
                    new
                ) != _get_displayed_values(old):
                    changed_cases.add(case)
                self._summaries[case] = new
        if changed_cases:
            self.changed.emit(frozenset(changed_cases))

    def _compare_labels(self) -> None:
        """Compare changed labels and predictions in short batches."""
        project = self._state.project
        if project is None or not self._stale_pairs or self._is_comparing:
            return
        self._is_comparing = True
        pairs = dict(self._stale_pairs)

        def compare_batch() -> dict[str, CaseDice]:
            deadline, dice_by_case = time.monotonic() + BATCH_S, {}
            for case, pair in pairs.items():
                dice_by_case[case] = compute_case_dice(project, case, pair.run)
                if time.monotonic() > deadline:
                    break
            return dice_by_case

        def on_done(dice_by_case: dict[str, CaseDice]) -> None:
            self._is_comparing = False
            if self._state.project is project:
                for case, dice in dice_by_case.items():
                    self._dice[case] = pairs[case], dice
                    if self._stale_pairs.get(case) == pairs[case]:
                        del self._stale_pairs[case]
                self._store_dice(dice_by_case)
            self._compare_labels()

        def on_error(_: Exception) -> None:
            self._is_comparing = False
            if self._state.project is not project:
                self._compare_labels()

        self._task_runner.submit_when_idle("dice", compare_batch, on_done, on_error)

    def _draw_thumbnails(self) -> None:
        """Draw the requested thumbnails, a few at a time."""
        project = self._state.project
        if project is None or not self._requested or self._is_drawing:
            return
        self._is_drawing = True
        batch, self._requested = (
            self._requested[:THUMBNAIL_BATCH],
            self._requested[THUMBNAIL_BATCH:],
        )

        def on_done(thumbnails: dict[str, Thumbnail]) -> None:
            self._is_drawing = False
            if self._state.project is project:
                self._update(
                    {case: {"thumbnail": thumbnail} for case, thumbnail in thumbnails.items()}
                )
            self._draw_thumbnails()

        def on_error(_: Exception) -> None:
            self._is_drawing = False
            if self._state.project is not project:
                self._draw_thumbnails()

        self._task_runner.submit_when_idle(
            "thumbnails", lambda: load_thumbnails(project, batch), on_done, on_error
        )


def _get_displayed_values(summary: CaseSummary) -> tuple[object, ...]:
    """Return the values that the list displays."""
    return summary.dice, summary.dice_note, summary.older_run, summary.suggestion
