"""The history of training rounds: what each learned from and how well it did."""

from __future__ import annotations

from dataclasses import dataclass

from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project

MOST_POINTS = 400  # of a curve; more cannot be seen
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Round:
    """One run; ``dice`` on the validation cases, ``None`` where there were none."""

    run: str
    method: str
    labeled: int
    steps: int
    dice: float | None
    started_from: str | None
    outcome: str  # "finished", "stopped", "failed", or "" while it is at work
    loss: Curve  # over steps, of the labeled patches
    validation: Curve  # Dice over steps


def rounds(project: Project) -> list[Round]:
    """All runs of a project that got as far as a step, the oldest first."""
    found = [_round(run) for run in project.runs()]
    return [one for one in found if one.steps]


def _round(run: Run) -> Round:
    events = run.read_history()
    config = run.read_config()
    labeled = steps = 0
    dice: float | None = None
    outcome = ""
    loss: Curve = []
    validation: Curve = []
    for event in events:
        kind = event.get("event")
        if kind == "started":
            labeled, outcome = int(event.get("labeled", 0)), ""
        elif kind == "step":
            steps = int(event["step"])
            value = (event.get("parts") or {}).get("supervised")
            if value is not None:
                loss.append((float(steps), float(value)))
        elif kind == "validation" and event.get("mean") is not None:
            dice = float(event["mean"])
            validation.append((float(event["step"]), dice))
        elif kind in ("finished", "stopped", "failed"):
            outcome = str(kind)
            steps = int(event.get("step", steps))
    return Round(
        run.id,
        str(config.get("method", "")),
        labeled,
        steps,
        dice,
        config.get("init_from"),
        outcome,
        _thinned(loss),
        _thinned(validation),
    )


def verdict(history: list[Round]) -> str:
    """In a sentence, whether more labels still help; empty while that cannot be said.

    The best Dice with the most labels is compared to the best with fewer.
    """
    scored = [one for one in history if one.dice is not None]
    counts = sorted({one.labeled for one in scored})
    if len(counts) < 2:
        return ""
    most = max(one.dice or 0.0 for one in scored if one.labeled == counts[-1])
    before = max(one.dice or 0.0 for one in scored if one.labeled < counts[-1])
    gain = 100 * (most - before)
    added = counts[-1] - counts[-2]
    cases = f"{added} more labeled case{'s' if added > 1 else ''}"
    if gain >= 1.0:
        return f"{cases} brought {gain:.1f} points of validation Dice: more labels still help."
    if gain > -1.0:
        return f"{cases} changed validation Dice by {gain:+.1f} points: more labels hardly help."
    return (
        f"Validation Dice fell by {-gain:.1f} points with {cases}: train longer, or look through "
        "the newest labels."
    )


def _thinned(curve: Curve) -> Curve:
    stride = -(-len(curve) // MOST_POINTS)
    return curve[:: max(stride, 1)]
