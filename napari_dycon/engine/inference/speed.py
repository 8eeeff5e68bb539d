"""Speed of the work of a prediction, from recent measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# Networks that process a scan, labeled scans that are registered to one and fused, and those that
# are only registered.
Work = Literal["passes", "atlases", "registrations"]

# Seconds of a unit of work relative to a pass, measured on the left atrium with two cores. They are
# used as long as a kind of work was not measured.
RELATIVE_SECONDS: Mapping[Work, float] = {"passes": 1.0, "atlases": 0.15, "registrations": 0.15}
KEPT = 0.5  # weight of a measurement relative to the next one
# Structures differ in more voxels the more atlases there are, and only those voxels are fused.
ATLAS_EXPONENT = 1.5


def count_atlas_work(n_atlases: int) -> float:
    """Return the work of registering and fusing a number of atlases."""
    return float(n_atlases**ATLAS_EXPONENT)


@dataclass(frozen=True)
class RecentSpeed:
    """Amount of work and its seconds; earlier measurements have less weight."""

    amount: float = 0.0
    seconds: float = 0.0

    @property
    def unit_s(self) -> float | None:
        """Seconds of one unit; ``None`` if nothing was measured."""
        return self.seconds / self.amount if self.amount else None

    def add(self, amount: float, seconds: float, fraction: float = 1.0) -> RecentSpeed:
        """Return the speed with another measurement.

        Parameters
        ----------
        amount, seconds : work that is done, and its time
        fraction : of the work that was begun
        """
        kept = KEPT**fraction
        return RecentSpeed(kept * self.amount + amount, kept * self.seconds + seconds)


def fill_unknown_speeds(unit_s: Mapping[Work, float | None]) -> dict[Work, float] | None:
    """Estimate the seconds of a unit of each kind of work that was not measured.

    Returns
    -------
    seconds of a unit of each kind; ``None`` if no kind was measured
    """
    known = {kind: value for kind, value in unit_s.items() if value is not None}
    if not known:
        return None
    factors = [value / RELATIVE_SECONDS[kind] for kind, value in known.items()]
    pass_s = sum(factors) / len(factors)
    return {kind: known.get(kind, pass_s * share) for kind, share in RELATIVE_SECONDS.items()}
