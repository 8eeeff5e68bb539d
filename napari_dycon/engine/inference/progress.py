"""Progress of a prediction of several scans, with the phases before and after them.

The remaining time is estimated from what was measured: scans of a phase take as long as those of
this phase that are done. The first scan of a phase is estimated from its work, in passes of a
network and in registered atlases, and from the time that each took so far.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from napari_dycon.project.runs.events import PredictingEvent, PredictionProgressEvent

PredictionPhase = Literal[
    "loading", "preliminary", "checking", "references", "predicting", "comparing"
]
Work = Literal["passes", "atlases"]

# Measured on the left atrium, for as long as one of the two is unknown.
PASSES_PER_ATLAS = 0.2
MIN_FRACTION = 0.1  # of a work, below which its own speed says too little
MIN_REMAINING = 0.05  # of the expected time of a scan that takes longer than expected


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
    """Scans of a phase, and the work of each."""

    total: int = 0
    n_finished: int = 0
    n_timed: int = 0
    seconds: float = 0.0  # of the timed scans together
    work: dict[Work, float] = field(default_factory=dict)

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
        self._scan_start: float | None = None
        self._last_finish: tuple[_Phase, float] | None = None
        self._current: _CurrentWork | None = None
        self._done_in_scan: dict[Work, float] = {}
        self._measured: dict[Work, tuple[float, float]] = {}  # amount and seconds
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

    def plan(self, phase: PredictionPhase, *, passes: float = 0.0, atlases: float = 0.0) -> None:
        """Set the work of each scan of a phase.

        Parameters
        ----------
        passes : scans that networks process, in voxels of the scan
        atlases : labeled scans that are registered to it
        """
        with self._lock:
            self._phases[phase].work = {"passes": passes, "atlases": atlases}

    def start(self, case: str, phase: PredictionPhase | None = None) -> PredictingEvent:
        """Return the event that announces the next case."""
        with self._lock:
            now = time.monotonic()
            self._phase, self._case = phase or self._next_phase(), case
            if self._last_finish is not None:  # reading and writing between two scans
                previous, finish_time = self._last_finish
                if previous is self._phases[self._phase]:
                    previous.seconds += now - finish_time
            self._scan_start, self._done_in_scan, self._last_finish = now, {}, None
            return PredictingEvent(
                case=case,
                done=self.n_finished,
                total=self.total,
                remaining_s=self._estimate_remaining(),
            )

    def finish(self) -> None:
        """Count one more scan as done, whether or not its prediction succeeded."""
        with self._lock:
            phase = self._phases[self._next_phase() if self._scan_start is None else self._phase]
            phase.n_finished += 1
            if self._scan_start is not None:
                now = time.monotonic()
                phase.n_timed += 1
                phase.seconds += now - self._scan_start
                self._last_finish = phase, now
            self._scan_start, self._done_in_scan = None, {}

    def _next_phase(self) -> PredictionPhase:
        for name in ("references", "predicting"):
            if self._phases[name].n_left:
                return name
        return "predicting"

    @contextlib.contextmanager
    def measure(self, kind: Work, amount: float) -> Iterator[None]:
        """Measure work on the current scan, to estimate that of the others."""
        work = _CurrentWork(kind, amount, time.monotonic())
        with self._lock:
            self._current = work
        try:
            yield
        finally:
            with self._lock:
                self._current = None
                seconds = time.monotonic() - work.start_time
                known_amount, known_seconds = self._measured.get(kind, (0.0, 0.0))
                if amount:
                    self._measured[kind] = known_amount + amount, known_seconds + seconds
                self._done_in_scan[kind] = self._done_in_scan.get(kind, 0.0) + amount

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
        rates: dict[Work, float | None] = {
            "passes": self._estimate_rate("passes"),
            "atlases": self._estimate_rate("atlases"),
        }
        if rates["passes"] is None and rates["atlases"] is not None:
            rates["passes"] = rates["atlases"] / PASSES_PER_ATLAS
        elif rates["atlases"] is None and rates["passes"] is not None:
            rates["atlases"] = rates["passes"] * PASSES_PER_ATLAS
        remaining = 0.0
        for name, phase in self._phases.items():
            is_current = self._scan_start is not None and name == self._phase
            n_waiting = phase.n_left - is_current
            if n_waiting <= 0 and not is_current:
                continue
            scan_s = self._estimate_scan(phase, rates)
            if scan_s is None:
                return None
            remaining += max(n_waiting, 0) * scan_s
            if is_current:
                remaining += self._estimate_current_scan(phase, scan_s, rates)
        return round(remaining, 1)

    def _estimate_scan(self, phase: _Phase, rates: dict[Work, float | None]) -> float | None:
        if phase.n_timed:
            return phase.seconds / phase.n_timed
        seconds = 0.0
        for kind, amount in phase.work.items():
            rate = rates[kind]
            if amount and rate is None:
                return None
            seconds += amount * (rate or 0.0)
        return seconds if phase.work else None

    def _estimate_current_scan(
        self, phase: _Phase, scan_s: float, rates: dict[Work, float | None]
    ) -> float:
        assert self._scan_start is not None
        elapsed = time.monotonic() - self._scan_start
        if phase.n_timed or not phase.work:
            return max(scan_s - elapsed, MIN_REMAINING * scan_s)
        remaining = 0.0
        for kind, amount in phase.work.items():
            left = amount - self._done_in_scan.get(kind, 0.0)
            rate = rates[kind] or 0.0
            if self._current is not None and self._current.kind == kind:
                spent = time.monotonic() - self._current.start_time
                fraction = self._current.fraction or spent / max(self._current.amount * rate, 1e-9)
                left -= self._current.amount * min(fraction, 1.0 - MIN_REMAINING)
            remaining += max(left, 0.0) * rate
        return remaining

    def _estimate_rate(self, kind: Work) -> float | None:
        """Estimate the seconds of one unit of work; ``None`` if it is unknown."""
        amount, seconds = self._measured.get(kind, (0.0, 0.0))
        if self._current is not None and self._current.kind == kind:
            done = self._current.amount * self._current.fraction
            if amount or self._current.fraction >= MIN_FRACTION:
                spent = time.monotonic() - self._current.start_time
                # Without a reported fraction, work that takes longer than expected is slower.
                if done or (amount and spent / max(self._current.amount, 1e-9) > seconds / amount):
                    amount, seconds = amount + (done or self._current.amount), seconds + spent
        return seconds / amount if amount else None
