"""Options of an export; each format refuses those that it does not use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from napari_dycon.errors import UserError
from napari_dycon.io.dicom.terminology import Code

MaskSource = Literal["auto", "labels", "predictions"]


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes
    ----------
    source : source of masks: "labels", "predictions", or "auto" (labels and, with
        ``include_unreviewed``, predictions in unannotated voxels)
    run : run whose predictions or weights are exported; by default the newest, for masks and the
        report the newest that predicted the case
    cases : case ids; by default all
    include_partial : also export the masks of cases in progress
    include_unreviewed : with the source "auto", also export predictions that were not accepted:
        alone, and in the unannotated voxels of cases in progress
    uncertainty : also write uncertainty maps
    keep_identity : copy the patient's name, ID and dates from the series to DICOM files
    codes : coded terms of DICOM segmentations by class value; by default, terms are suggested by
        the class names
    dataset_id : number of an nnU-Net dataset, 1 to 999; by default the first free one
    """

    source: str = "auto"  # one of ``MaskSource``
    run: str | None = None
    cases: Sequence[str] | None = None
    include_partial: bool = False
    include_unreviewed: bool = False
    uncertainty: bool = False
    keep_identity: bool = False
    codes: Mapping[int, Code] | None = None
    dataset_id: int | None = None

    def __post_init__(self) -> None:
        if self.source not in get_args(MaskSource):
            raise UserError(
                f"'{self.source}' cannot be exported; expected auto, labels or predictions."
            )

    @property
    def uses_labels(self) -> bool:
        """Whether labels are exported."""
        return self.source != "predictions"

    @property
    def uses_predictions(self) -> bool:
        """Whether predictions are exported."""
        return self.source == "predictions" or (self.source == "auto" and self.include_unreviewed)
