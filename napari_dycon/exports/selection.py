"""Which cases an export of masks includes, and what the mask of each is.

A mask is drawn by a person, imported, predicted by a network, or several of these. Cases in
progress and predictions that were not reviewed are exported only on request.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_dycon import io
from napari_dycon.core.types import UNANNOTATED, ItemProgressCallback, LabelArray
from napari_dycon.errors import DyconError
from napari_dycon.exports.options import ExportOptions
from napari_dycon.project.acceptances import is_accepted
from napari_dycon.project.imported_labels import get_import_state, was_imported
from napari_dycon.project.models import Case, Status
from napari_dycon.project.store import Project


class MaskOrigin(enum.StrEnum):
    """What a mask is made of, as shown to the user and written to files."""

    DRAWN = "drawn"
    IMPORTED = "imported"
    CHANGED = "imported, then changed"
    ACCEPTED = "accepted prediction"
    CORRECTED = "corrected prediction"
    COMPLETED = "drawn in part, rest from prediction"
    PARTIAL = "drawn in part"
    PREDICTED = "prediction only"

    @property
    def is_predicted(self) -> bool:
        """Whether voxels come from a prediction that was not accepted."""
        return self in (MaskOrigin.COMPLETED, MaskOrigin.PREDICTED)

    @property
    def is_partial(self) -> bool:
        """Whether only a part was drawn."""
        return self in (MaskOrigin.COMPLETED, MaskOrigin.PARTIAL)


class Reason(enum.StrEnum):
    """Why a case is left out of an export."""

    IN_PROGRESS = "in progress"
    NOT_REVIEWED = "prediction not reviewed"
    NO_LABEL = "without label"
    NO_PREDICTION = "without prediction"
    NOTHING = "without label or prediction"
    EMPTY = "without structure"
    NO_SERIES = "without original DICOM series"

    @property
    def option(self) -> str:
        """Option of the command that includes such cases; empty if there is none."""
        options = {
            Reason.IN_PROGRESS: "--include-partial",
            Reason.NOT_REVIEWED: "--include-unreviewed",
        }
        return options.get(self, "")


# Reasons as they follow a number of cases, where they differ from those of one case.
PLURALS: dict[str, str] = {Reason.NOT_REVIEWED: "with a prediction that is not reviewed"}


@dataclass(frozen=True)
class PlannedMask:
    """The mask of a case that an export would write.

    Attributes
    ----------
    origin : ``None`` if the case has no such mask
    run : run whose prediction belongs to the case, also where the mask is drawn
    left_out : why it is not written; ``None`` if it is
    name : name of the case in the window; files are named after its id
    """

    case: str
    status: Status
    origin: MaskOrigin | None
    run: str | None
    left_out: Reason | None = None
    name: str = ""

    @property
    def is_unfinished(self) -> bool:
        """Whether only a part is drawn, or the case is in progress."""
        is_drawn = self.origin is not None and self.origin is not MaskOrigin.PREDICTED
        is_partial = self.origin is not None and self.origin.is_partial
        return is_partial or (is_drawn and self.status is Status.IN_PROGRESS)

    @property
    def is_reviewed(self) -> bool:
        """Whether a person marked the case as reviewed and nothing of the mask is unreviewed."""
        return (
            self.status is Status.REVIEWED
            and self.origin is not None
            and not self.origin.is_predicted
        )


def plan_masks(
    project: Project,
    options: ExportOptions,
    *,
    read_labels: bool = True,
    needs_series: bool = False,
    on_progress: ItemProgressCallback | None = None,
) -> list[PlannedMask]:
    """Plan the masks of all chosen cases, including those that are left out.

    Parameters
    ----------
    read_labels : read the labels of cases in progress and of those that may be accepted
        predictions; without it, the status of a case decides, which needs no file to be read
    needs_series : leave out cases that are not a DICOM series by their names
    on_progress : called after each case with the number of cases done, their total, and the case id

    Raises
    ------
    ProjectError, UserError
        The run or a case does not exist.
    """
    run = project.runs.get(options.run).id if options.run else None
    chosen = options.cases
    cases = project.cases if chosen is None else [project.get_case(case) for case in chosen]
    planned = []
    for number, case in enumerate(cases, start=1):
        mask = _plan_mask(project, case, options, run, read_labels)
        mask = replace(mask, name=case.display_name)
        if needs_series and mask.origin is not None and not has_series(project, case.id):
            mask = replace(mask, left_out=Reason.NO_SERIES)
        planned.append(mask)
        if on_progress:
            on_progress(number, len(cases), case.id)
    return planned


def _plan_mask(
    project: Project, case: Case, options: ExportOptions, run: str | None, read_labels: bool
) -> PlannedMask:
    run = _choose_run(project, case.id, run)
    if options.uses_labels and has_label(project, case):
        origin = _classify_label(project, case, read_labels)
        if origin is MaskOrigin.PARTIAL and options.uses_predictions and run is not None:
            origin = MaskOrigin.COMPLETED
        in_progress = origin.is_partial or case.status is Status.IN_PROGRESS
        reason = Reason.IN_PROGRESS if in_progress and not options.include_partial else None
        return PlannedMask(case.id, case.status, origin, run, reason)
    if options.source != "labels" and run is not None:
        reason = None if options.uses_predictions else Reason.NOT_REVIEWED
        return PlannedMask(case.id, case.status, MaskOrigin.PREDICTED, run, reason)
    missing = {"labels": Reason.NO_LABEL, "predictions": Reason.NO_PREDICTION}
    return PlannedMask(case.id, case.status, None, run, missing.get(options.source, Reason.NOTHING))


def has_label(project: Project, case: Case) -> bool:
    """Check whether a case has a label with annotations."""
    return case.status is not Status.UNLABELED and project.labels.path(case.id).exists()


def _choose_run(project: Project, case: str, run: str | None) -> str | None:
    """Choose the run whose prediction is exported: the requested run or the newest."""
    runs = project.predictions.list_run_ids(case)
    if run is not None:
        return run if run in runs else None
    return next(iter(runs), None)


def _classify_label(project: Project, case: Case, read_labels: bool) -> MaskOrigin:
    """Classify a label; if it cannot be read, by the status of the case."""
    is_imported = was_imported(project.path, case.id)
    by_status = MaskOrigin.IMPORTED if is_imported else MaskOrigin.DRAWN
    if case.status is Status.IN_PROGRESS:
        by_status = MaskOrigin.PARTIAL
    if not read_labels or (
        by_status is MaskOrigin.DRAWN and not project.predictions.list_run_ids(case.id)
    ):
        return by_status
    try:
        return classify_label(project, case.id, io.read_label(project.labels.path(case.id)).array)
    except DyconError:  # reported when the mask is written
        return by_status


def classify_label(project: Project, case: str, label: LabelArray) -> MaskOrigin:
    """Determine whether a label is drawn, in part or whole, imported, or from a prediction."""
    if (label == UNANNOTATED).any():
        return MaskOrigin.PARTIAL
    imported = get_import_state(project.path, case, label)
    if imported == "unchanged":
        return MaskOrigin.IMPORTED
    accepted = read_accepted_predictions(project, case, label)
    if any(np.array_equal(prediction, label) for prediction in accepted):
        return MaskOrigin.ACCEPTED
    if accepted:
        return MaskOrigin.CORRECTED
    return MaskOrigin.CHANGED if imported else MaskOrigin.DRAWN


def read_accepted_predictions(project: Project, case: str, label: LabelArray) -> list[LabelArray]:
    """Read the predictions that a label comes from, at least in part."""
    accepted = []
    for run in project.predictions.list_run_ids(case):
        try:
            prediction = project.predictions.read(run, case)
        except DyconError:  # damaged; it was not accepted in this state
            continue
        if prediction is not None and is_accepted(project, run, case, label, prediction):
            accepted.append(prediction)
    return accepted


def summarize_selection(masks: Iterable[PlannedMask], total: int) -> str:
    """Summarize selected masks, such as "5 of 12 cases; 2 from predictions, 1 drawn in part"."""
    origins = Counter(mask.origin for mask in masks)
    parts = []
    n_predicted = sum(n for origin, n in origins.items() if origin and origin.is_predicted)
    if n_predicted:
        parts.append(f"{n_predicted} from predictions")
    if n_partial := origins[MaskOrigin.PARTIAL]:
        parts.append(f"{n_partial} drawn in part")
    count = f"{origins.total()} of {total} case{'' if total == 1 else 's'}"
    return f"{count}; {', '.join(parts)}" if parts else count


def summarize_reasons(reasons: Sequence[str]) -> str:
    """Summarize reasons by their number, such as "3 in progress, 1 without label"."""
    counts = Counter(reasons).most_common()
    return ", ".join(f"{count} {PLURALS.get(reason, reason)}" for reason, count in counts)


def is_selected_by_default(mask: PlannedMask, source: str) -> bool:
    """Check whether a case is exported without being asked for.

    Finished labels are, and predictions if nothing but predictions is exported.
    """
    if mask.origin is None or mask.left_out is not None:
        return False
    if source == "predictions":
        return True
    is_finished = not (mask.origin.is_predicted or mask.origin.is_partial)
    return is_finished and mask.status is not Status.IN_PROGRESS


def has_series(project: Project, case: str) -> bool:
    """Check by name whether a case is a DICOM series that was not resampled."""
    image = project.image_paths(case)[0]
    return not (project.get_case(case).resampled or io.is_scan(image))
