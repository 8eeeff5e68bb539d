"""What the prediction of a case is: finished, preliminary, or a preview during training."""

from __future__ import annotations

from napari_dycon.application.active_case import ActiveCase
from napari_dycon.application.predictions.status import PredictionStatus

PREVIEW_TEXT = "Preview during training"
PRELIMINARY_TEXT = "Preliminary prediction"


def describe_stage(case: ActiveCase | None) -> str:
    """Name a prediction that is not finished; empty if it is, or if there is none."""
    if case is None or case.prediction is None:
        return ""
    return {"preview": PREVIEW_TEXT, "preliminary": PRELIMINARY_TEXT}.get(case.stage, "")


def describe_source(
    case: ActiveCase | None,
    status: PredictionStatus | None,
    *,
    training: str | None = None,
    newest: str | None = None,
) -> str:
    """Describe where the prediction that is shown comes from.

    Parameters
    ----------
    status : of the running prediction
    training : run that is training
    newest : newest run that can predict
    """
    if case is None:
        return "No case selected."
    if case.is_prediction_pending:
        return f"Reading the prediction of {case.display_name}…"
    if case.prediction is None:
        return f"{case.display_name} has no prediction yet."
    if case.is_preview:
        ending = "" if case.run == training else ", not a finished prediction"
        return f"{PREVIEW_TEXT} (run {case.run}){ending}."
    if case.is_preliminary:
        if status is not None and status.run == case.run and status.is_refining(case.id):
            return f"{PRELIMINARY_TEXT}; refining…"
        return f"{PRELIMINARY_TEXT} of run {case.run}, not refined."
    if newest is not None and newest != case.run:
        return f"Older prediction: run {case.run}; newest: run {newest}."
    return f"Prediction of run {case.run} for {case.display_name}."
