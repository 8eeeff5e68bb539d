"""Progress of a prediction of several scans, with the phases before and after them.

The remaining time is estimated from what was measured: each scan is work of some kinds, whose
speed is that of the same kind of work, if possible in the same phase. Recent work counts most,
since other programs may use the same computer. Kinds of work that were not measured yet are
estimated from the others.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from napari_dycon.engine.inference.speed import (
    RELATIVE_SECONDS,
    RecentSpeed,
    Work,
    count_atlas_work,
    fill_unknown_speeds,
)
from napari_dycon.project.runs.events import PredictingEvent, PredictionProgressEvent

PredictionPhase = Literal[
    "loading", "preliminary", "checking", "references", "predicting", "comparing"
]

MIN_FRACTION = 0.1  # of a work, below which its own speed says too little
MIN_REMAINING = 0.05  # of the expected time of work that takes longer than expected


def count_passes(scales: Sequence[float], *, is_mirrored: bool) -> float:
    """Return the work of an ensemble: scans that its networks process, in voxels of the scan."""
    return sum(scale**3 for scale in scales) * (2 if is_mirrored else 1)


def measure_work(
    progress: PredictionProgress | None, kind: Work, amount: float
) -> contextlib.AbstractContextManager[None]:
    """Measure work on the current scan if its progress is followed."""
    return contextlib.nullcontext() if progress is None else progress.measure(kind, amount)


@dataclass
class _Phase:
    """Scans of a phase, the work of each, and what was measured."""

    total: int = 0
    n_finished: int = 0
    work: dict[Work, float] = field(default_factory=dict)
    speeds: dict[Work, RecentSpeed] = field(default_factory=dict)
    others: RecentSpeed = field(default_factory=RecentSpeed)  # reading, writing; per scan

    @property
    def n_left(self) -> int:
        return max(self.total - self.n_finished, 0)


@dataclass
class _CurrentWork:
    """Work that is being done."""

    kind: Work
    amount: float
    start_time: float
    fraction: float = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start_time


@dataclass(frozen=True)
class _FinishedScan:
    """The scan before, until the next one starts.

    Attributes
    ----------
    others : of the phase, before that scan
    others_s : time of the scan without its work
    """

    phase: _Phase
    end_time: float
    others: RecentSpeed
    others_s: float


@dataclass
class _CurrentScan:
    """The scan that is being processed."""

    start_time: float
    done: dict[Work, float] = field(default_factory=dict)  # amounts
    work_s: float = 0.0


class PredictionProgress:
    """Counter of predicted scans, with an estimate of the remaining time; for any thread.

    Parameters
    ----------
    total : scans to predict, without templates
    """

    def __init__(self, total: int) -> None:
        self._lock = threading.RLock()
        self._phases: dict[PredictionPhase, _Phase] = {
            "preliminary": _Phase(),
            "checking": _Phase(),
            "references": _Phase(),
            "predicting": _Phase(total=total),
            "comparing": _Phase(),
        }
        self._phase: PredictionPhase = "loading"
        self._case = ""
        self._scan: _CurrentScan | None = None
        self._last_scan: _FinishedScan | None = None
        self._current: _CurrentWork | None = None
        self._speeds: dict[Work, RecentSpeed] = {}  # of all phases
        self._start_time = time.monotonic()
        self._largest_fraction = 0.0

    # ---- Counting ----------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """Scans to predict, with templates."""
        return self._phases["references"].total + self._phases["predicting"].total

    @property
    def n_finished(self) -> int:
        """Predicted scans, with templates, whether or not their prediction succeeded."""
        return self._phases["references"].n_finished + self._phases["predicting"].n_finished

    def add(self, count: int, phase: PredictionPhase = "references") -> None:
        """Add to the number of scans of a phase; may be negative."""
        with self._lock:
            self._phases[phase].total += count

    def set_total(self, count: int, phase: PredictionPhase) -> None:
        """Set the number of scans of a phase."""
        with self._lock:
            self._phases[phase].total = count

    def plan(
        self,
        phase: PredictionPhase,
        *,
        passes: float = 0.0,
        atlases: int = 0,
        registrations: int = 0,
    ) -> None:
        """Set the work of each scan of a phase.

        Parameters
        ----------
        passes : scans that networks process, in voxels of the scan
        atlases : labeled scans that are registered to it and fused
        registrations : labeled scans that are only registered to it
        """
        with self._lock:
            self._phases[phase].work = {
                "passes": passes,
                "atlases": count_atlas_work(atlases),
                "registrations": registrations,
            }

    def start(self, case: str, phase: PredictionPhase | None = None) -> PredictingEvent:
        """Return the event that announces the next case."""
        with self._lock:
            now = time.monotonic()
            self._phase, self._case = phase or self._next_phase(), case
            current, last = self._phases[self._phase], self._last_scan
            if last is not None and last.phase is current:  # reading and writing between two scans
                current.others = last.others.add(1.0, last.others_s + now - last.end_time)
            self._scan, self._last_scan = _CurrentScan(now), None
            return PredictingEvent(
                case=case,
                done=self.n_finished,
                total=self.total,
                remaining_s=self._estimate_remaining(),
            )

    def finish(self) -> None:
        """Count one more scan as done, whether or not its prediction succeeded."""
        with self._lock:
            scan = self._scan
            phase = self._phases[self._next_phase() if scan is None else self._phase]
            phase.n_finished += 1
            if scan is not None:
                now = time.monotonic()
                others_s = max(now - scan.start_time - scan.work_s, 0.0)
                self._last_scan = _FinishedScan(phase, now, phase.others, others_s)
                phase.others = phase.others.add(1.0, others_s)
            self._scan = None

    def _next_phase(self) -> PredictionPhase:
        for name in ("references", "predicting"):
            if self._phases[name].n_left:
                return name
        return "predicting"

    @contextlib.contextmanager
    def measure(self, kind: Work, amount: float) -> Iterator[None]:
        """Measure work on the current scan, to estimate that of the others."""
        if kind == "atlases":
            amount = count_atlas_work(round(amount))
        work = _CurrentWork(kind, amount, time.monotonic())
        with self._lock:
            self._current = work
        try:
            yield
        finally:
            with self._lock:
                self._current = None
                self._record(work)

    def _record(self, work: _CurrentWork) -> None:
        """Learn from work that is done."""
        kind, seconds = work.kind, work.seconds
        if self._scan is not None:
            self._scan.work_s += seconds
            self._scan.done[kind] = self._scan.done.get(kind, 0.0) + work.amount
        if work.amount:
            for speeds in (self._speeds, self._phases.get(self._phase, _Phase()).speeds):
                speeds[kind] = speeds.get(kind, RecentSpeed()).add(work.amount, seconds)

    def report_fraction(self, fraction: float) -> None:
        """Report how much of the current work is done."""
        with self._lock:
            if self._current is not None:
                self._current.fraction = min(max(fraction, 0.0), 1.0)

    # ---- Estimating --------------------------------------------------------------------------

    def make_event(self) -> PredictionProgressEvent:
        """Return the present progress."""
        with self._lock:
            remaining_s = self._estimate_remaining()
            elapsed = time.monotonic() - self._start_time
            if remaining_s is not None:
                fraction = elapsed / max(elapsed + remaining_s, 1e-9)
                self._largest_fraction = max(self._largest_fraction, fraction)
            phase = self._phases.get(self._phase, _Phase())
            return PredictionProgressEvent(
                phase=self._phase,
                case=self._case,
                done=phase.n_finished,
                total=max(phase.total, 0),
                progress=round(self._largest_fraction, 4),
                remaining_s=remaining_s,
            )

    def _estimate_remaining(self) -> float | None:
        measured = {kind: self._measure_unit(kind, self._speeds) for kind in RELATIVE_SECONDS}
        remaining = 0.0
        for name, phase in self._phases.items():
            scan = self._scan if name == self._phase else None
            n_waiting = max(phase.n_left - (scan is not None), 0)
            if not n_waiting and scan is None:
                continue
            unit_s = fill_unknown_speeds(self._choose_units(name, measured))
            if unit_s is None or not phase.work:
                return None
            others_s = phase.others.unit_s or 0.0
            scan_s = others_s + sum(amount * unit_s[kind] for kind, amount in phase.work.items())
            remaining += n_waiting * scan_s
            if scan is not None:
                remaining += self._estimate_current_scan(phase, scan, unit_s)
        return round(remaining, 1)

    def _choose_units(
        self, name: PredictionPhase, measured: Mapping[Work, float | None]
    ) -> dict[Work, float | None]:
        """Return the seconds of units of work in a phase, as they were there if possible."""
        own = {
            kind: self._measure_unit(kind, self._phases[name].speeds, name)
            for kind in RELATIVE_SECONDS
        }
        return {kind: measured[kind] if value is None else value for kind, value in own.items()}

    def _estimate_current_scan(
        self, phase: _Phase, scan: _CurrentScan, unit_s: Mapping[Work, float]
    ) -> float:
        elapsed = time.monotonic() - scan.start_time
        others_s = phase.others.unit_s or 0.0
        current = self._current
        spent_s = elapsed - scan.work_s - (current.seconds if current is not None else 0.0)
        remaining = max(others_s - spent_s, MIN_REMAINING * others_s)
        for kind, amount in phase.work.items():
            left = amount - scan.done.get(kind, 0.0)
            if current is not None and current.kind == kind:
                expected_s = current.amount * unit_s[kind]
                fraction = current.fraction or current.seconds / max(expected_s, 1e-9)
                left = max(left - current.amount, 0.0)
                left += current.amount * (1.0 - min(fraction, 1.0 - MIN_REMAINING))
            remaining += max(left, 0.0) * unit_s[kind]
        return remaining

    def _measure_unit(
        self,
        kind: Work,
        speeds: Mapping[Work, RecentSpeed],
        phase: PredictionPhase | None = None,
    ) -> float | None:
        """Return the seconds of a unit of work, with the current one; ``None`` if unknown.

        Parameters
        ----------
        phase : phase whose speeds these are; ``None`` for the speeds of all
        """
        speed, current = speeds.get(kind, RecentSpeed()), self._current
        is_current = current is not None and current.kind == kind and phase in (None, self._phase)
        if current is None or not is_current or not current.amount:
            return speed.unit_s
        if current.fraction >= MIN_FRACTION:
            done = current.fraction * current.amount
            return speed.add(done, current.seconds, current.fraction).unit_s
        # Without a reported fraction, work that takes longer than expected is slower.
        expected_s = None if speed.unit_s is None else current.amount * speed.unit_s
        if expected_s is not None and current.seconds > expected_s:
            return speed.add(current.amount, current.seconds).unit_s
        return speed.unit_s
