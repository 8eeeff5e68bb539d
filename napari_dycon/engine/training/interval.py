"""Timing of previews and validation: due after a period, limited to a fraction of the time."""

from __future__ import annotations

MAX_JOINT_FRACTION = 0.095  # of the time of a run, for previews and validation together


class JointTime:
    """Time that the periodic tasks of a run take together."""

    def __init__(self) -> None:
        self.spent_s = 0.0
        self.reserved_s = 0.0  # for the validation at the end of a run with a time limit

    def allows(self, now: float, cost_s: float, planned_s: float | None = None) -> bool:
        """Return whether a task of an expected duration fits into the joint fraction.

        Parameters
        ----------
        now : elapsed time of the run in seconds
        planned_s : duration of the whole run, if it is known
        """
        total_s = self.spent_s + cost_s
        is_within_run = (
            planned_s is None or total_s + self.reserved_s <= MAX_JOINT_FRACTION * planned_s
        )
        return is_within_run and total_s <= MAX_JOINT_FRACTION * now


class Interval:
    """Timer that is due once a period has passed and the task stays within its time fraction.

    The first task is limited like all others, by its expected duration.

    Parameters
    ----------
    period_s : seconds between the end of one task and the start of the next
    max_fraction : maximum fraction of the run's time
    joint : time of all periodic tasks of the run
    first_delay_s : seconds before the first task, by default the period
    """

    def __init__(
        self,
        period_s: float,
        max_fraction: float,
        joint: JointTime | None = None,
        *,
        first_delay_s: float | None = None,
    ) -> None:
        self._period_s, self._max_fraction = period_s, max_fraction
        self._wait_s = period_s if first_delay_s is None else first_delay_s
        self._joint = joint or JointTime()
        self._origin: float | None = None  # time of the first call
        self._end = 0.0  # of the last task
        self._spent_s = 0.0

    def is_waiting(self, now: float) -> bool:
        """Return whether the period has not passed; ``now`` is the elapsed time of the run in s."""
        if self._origin is None:
            self._origin = self._end = now
        return now - self._end < self._wait_s

    def is_due(self, now: float, cost_s: float, planned_s: float | None = None) -> bool:
        """Return whether to start the task.

        Parameters
        ----------
        now : elapsed time of the run in seconds
        cost_s : expected duration of the task
        planned_s : duration of the whole run, if it is known; its fraction can be used early, as
            far as the joint fraction of the elapsed time allows
        """
        if self.is_waiting(now):
            return False
        is_within_own = self._spent_s + cost_s <= self._max_fraction * (planned_s or now)
        return is_within_own and self._joint.allows(now, cost_s, planned_s)

    def record(self, now: float, duration: float) -> None:
        """Record the end of the task and its duration in seconds."""
        self._spent_s += duration
        self._joint.spent_s += duration
        self._end, self._wait_s = now, self._period_s
