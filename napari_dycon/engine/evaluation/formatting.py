"""Evaluation metrics as formatted text, for terminals and reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class MetricColumn(NamedTuple):
    """A column of a table of metrics; ``key`` as in the result of an evaluation."""

    key: str
    title: str
    format_spec: str


CASE_COLUMNS = ("case", "class")
METRIC_COLUMNS = (
    MetricColumn("dice", "Dice", ".3f"),
    MetricColumn("jaccard", "Jaccard", ".3f"),
    MetricColumn("hd95_mm", "HD95 (mm)", ".2f"),
    MetricColumn("asd_mm", "ASD (mm)", ".2f"),
    MetricColumn("volume_ml", "volume (ml)", ".2f"),
    MetricColumn("reference_volume_ml", "reference volume (ml)", ".2f"),
)
UNCERTAINTY_DESCRIPTIONS = {
    "auroc": "AUROC of error detection by uncertainty, whole scan (0.5: chance, 1: perfect)",
    "auroc_foreground": "AUROC of error detection by uncertainty, foreground margin",
    "ece": "Expected calibration error, ECE (0: perfect)",
    "rank_correlation": "Rank correlation of case uncertainty with 1 - Dice (1: perfect)",
}
MISSED_NOTE = (
    "(missed): the structure is in only one of prediction and reference. Its Dice is 0, and its "
    "distances are set to the diagonal of the scan."
)


def has_missed_structures(result: Mapping[str, Any]) -> bool:
    """Check whether a structure is marked as missed in any case."""
    return any(
        scores["missed"] for case in result["cases"].values() for scores in case["classes"].values()
    )


def format_evaluation_rows(
    result: Mapping[str, Any], names: Mapping[int, str] | None = None
) -> list[list[str]]:
    """Format one row for each case and class, then the mean of each class.

    Parameters
    ----------
    result : result of ``evaluate_folders``
    names : names of classes by their values; other classes are shown by value

    Returns
    -------
    table cells in the order of ``CASE_COLUMNS`` and ``METRIC_COLUMNS``
    """
    names = names or {}
    rows = []
    for case, case_scores in result["cases"].items():
        for value, scores in case_scores["classes"].items():
            missed = " (missed)" if scores["missed"] else ""
            rows.append([case, _get_class_name(value, names) + missed, *_format_metrics(scores)])
    for value, statistics in result["summary"]["classes"].items():
        means = {column.key: statistics[column.key]["mean"] for column in METRIC_COLUMNS}
        rows.append(["mean", _get_class_name(value, names), *_format_metrics(means)])
    return rows


def describe_uncertainty(summary: Mapping[str, Any]) -> list[str]:
    """Describe the quality of the uncertainty maps, one line per metric."""
    measures = summary.get("uncertainty") or {}
    return [
        f"{text}: {measures[key]:.3f}"
        for key, text in UNCERTAINTY_DESCRIPTIONS.items()
        if measures.get(key) is not None
    ]


def _get_class_name(value: object, names: Mapping[int, str]) -> str:
    return names.get(int(str(value)), str(value))


def _format_metrics(scores: Mapping[str, Any]) -> list[str]:
    return [
        "–" if scores[column.key] is None else format(scores[column.key], column.format_spec)
        for column in METRIC_COLUMNS
    ]
