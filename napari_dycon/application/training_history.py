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


def read_training_history(project: Project) -> list[RunSummary]:
    """Return all runs of a project with at least one step, the oldest first."""
    summaries = [_summarize_run(run) for run in project.runs.list()]
    return [summary for summary in summaries if summary.steps]


def _summarize_run(run: Run) -> RunSummary:
    events = run.read_history()
    config = run.read_config()
    n_labeled = steps = 0
    dice: float | None = None
    outcome = ""
    loss: Curve = []
    validation: Curve = []
    for event in events:
        match event:
            case StartedEvent():
                n_labeled, outcome = event.labeled, ""
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
    )


def label_gain_summary(history: list[RunSummary]) -> str:
    """Summarize in a sentence whether more labels still help; empty if unknown.

    The best Dice with the most labels is compared to the best with fewer.
    """
    scored = [summary for summary in history if summary.dice is not None]
    counts = sorted({summary.n_labeled for summary in scored})
    if len(counts) < 2:
        return ""
    newest_dice = max(summary.dice or 0.0 for summary in scored if summary.n_labeled == counts[-1])
    earlier_dice = max(summary.dice or 0.0 for summary in scored if summary.n_labeled < counts[-1])
    gain = 100 * (newest_dice - earlier_dice)
    n_added = counts[-1] - counts[-2]
    cases = f"{n_added} more labeled case{'s' if n_added > 1 else ''}"
    if gain >= 1.0:
        return f"{cases} raised validation Dice by {gain:.1f} points: more labels still help."
    if gain > -1.0:
        return f"{cases} changed validation Dice by {gain:+.1f} points: more labels help little."
    return (
        f"Validation Dice fell by {-gain:.1f} points with {cases}: train longer or check the "
        "newest labels."
    )
