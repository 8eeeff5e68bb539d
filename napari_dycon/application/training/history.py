"""Training history: labeled cases, steps and validation Dice of each run."""

from __future__ import annotations

from dataclasses import dataclass

from napari_dycon.core.sequences import subsample
from napari_dycon.project.runs.events import (
    FailedEvent,
    FinishedEvent,
    StartedEvent,
    StepEvent,
    StoppedEvent,
    ValidationEvent,
)
from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project

MAX_CURVE_POINTS = 400  # more would not be visible
MIN_STEP_RATIO = 1.1  # runs that differ by more in steps were trained unequally
MIN_TELLING_STEPS = 50  # networks with fewer steps have hardly learned
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class RunSummary:
    """One run; ``dice`` on the validation cases, ``None`` where there were none."""

    run: str
    method: str
    n_labeled: int
    steps: int
    dice: float | None
    init_from: str | None
    outcome: str  # "finished", "stopped", "failed", or "" while it is running
    loss: Curve  # over steps, of the labeled patches
    validation: Curve  # Dice over steps
    n_validation: int = 0  # number of validation cases


def read_training_history(project: Project) -> list[RunSummary]:
    """Return all runs of a project with at least one step, the oldest first."""
    summaries = [_summarize_run(run) for run in project.runs.list()]
    return [summary for summary in summaries if summary.steps]


def _summarize_run(run: Run) -> RunSummary:
    events = run.read_history()
    config = run.read_config()
    n_labeled = n_validation = steps = 0
    dice: float | None = None
    outcome = ""
    loss: Curve = []
    validation: Curve = []
    for event in events:
        match event:
            case StartedEvent():
                n_labeled, n_validation, outcome = event.labeled, event.validation, ""
            case StepEvent():
                steps = event.step
                if (value := event.loss_terms.get("supervised")) is not None:
                    loss.append((float(steps), value))
            case ValidationEvent(mean=float(mean)):
                dice = mean
                validation.append((float(event.step), mean))
            case FinishedEvent() | StoppedEvent():
                outcome, steps = event.event, event.step
            case FailedEvent():
                outcome = event.event
    trained_on = run.read_metrics().labeled
    if trained_on is not None:  # without the cases that were left out after the start
        n_labeled = len(trained_on)
    return RunSummary(
        run.id,
        str(config.get("method", "")),
        n_labeled,
        steps,
        dice,
        config.get("init_from"),
        outcome,
        subsample(loss, MAX_CURVE_POINTS),
        subsample(validation, MAX_CURVE_POINTS),
        n_validation,
    )


def compare_rounds(history: list[RunSummary]) -> str:
    """Describe how the validation Dice of the last two scored runs differs; empty without two.

    Nothing is concluded about the labels: runs also differ in training, and one or two validation
    cases do not tell whether more labels help. Every known difference is named instead.
    """
    scored = [summary for summary in history if summary.dice is not None]
    if len(scored) < 2:
        return ""
    before, after = scored[-2:]
    n_cases = after.n_validation
    cases = "one validation case" if n_cases == 1 else f"{n_cases} validation cases"
    text = f"Dice {before.dice:.2f} → {after.dice:.2f} on {cases}"
    differences = []
    added = after.n_labeled - before.n_labeled
    if added:
        more = "more" if added > 0 else "fewer"
        plural = "" if abs(added) == 1 else "s"
        differences.append(f"had {abs(added)} {more} annotated case{plural}")
    total_before, total_after = (_total_steps(history, one) for one in (before, after))
    if total_after > MIN_STEP_RATIO * total_before:
        differences.append("trained longer")
    elif total_before > MIN_STEP_RATIO * total_after:
        differences.append("trained for a shorter time")
    if before.n_validation != n_cases:
        differences.append(f"was scored on {n_cases} instead of {before.n_validation} cases")
    if before.method != after.method:
        differences.append("used another method")
    if differences:
        listed = differences[0] + "".join(f" and {one}" for one in differences[1:])
        text += f"; {after.run} {listed}"
    text += "."
    if min(before.steps, after.steps) < MIN_TELLING_STEPS:
        text += f" Fewer than {MIN_TELLING_STEPS} steps are too few to compare."
    if history.index(after) - history.index(before) > 1:
        text = f"{before.run} and {after.run}: {text}"
    return text


def _total_steps(history: list[RunSummary], summary: RunSummary) -> int:
    """Return the steps of a run with those of the runs whose weights it continued from."""
    by_id = {one.run: one for one in history}
    total, seen = 0, set()
    current: RunSummary | None = summary
    while current is not None and current.run not in seen:
        seen.add(current.run)
        total += current.steps
        current = by_id.get(current.init_from or "")
    return total
