"""Options of an export; each format uses those that concern it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from napari_dycon.errors import UserError
from napari_dycon.io.dicom.terminology import Code

MaskSource = Literal["auto", "labels", "predictions"]


@dataclass(frozen=True)
class ExportOptions:
    """What to export of a project, and how.

    Attributes
    ----------
    source : of masks: "labels", "predictions", or "auto" for labels with the prediction where a
        voxel is unannotated
    run : whose predictions or weights; by default the newest, for masks that of each case
    cases : ids; by default all
    uncertainty : also write uncertainty maps beside masks
    keep_identity : of DICOM files, take over the patient's name and dates from the series
    codes : of DICOM segmentations, terms by class value; by default those that the classes' names
        suggest
    """

    source: str = "auto"  # one of ``MaskSource``
    run: str | None = None
    cases: Sequence[str] | None = None
    uncertainty: bool = False
    keep_identity: bool = False
    codes: Mapping[int, Code] | None = None

    def __post_init__(self) -> None:
        if self.source not in get_args(MaskSource):
            raise UserError(
                f"'{self.source}' cannot be exported; expected auto, labels or predictions."
            )
