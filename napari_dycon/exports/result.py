"""The result of an export: files, masks with their origins, and the cases that were left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_dycon.exports.selection import MaskOrigin, Reason, summarize_reasons
from napari_dycon.project.models import Status


@dataclass(frozen=True)
class ExportedMask:
    """A mask that was written.

    Attributes
    ----------
    run : run whose prediction is in the mask; ``None`` if it is drawn
    is_reviewed : whether a person marked the case as reviewed
    """

    case: str
    path: Path
    origin: MaskOrigin
    run: str | None
    status: Status
    is_reviewed: bool


@dataclass(frozen=True)
class LeftOutCase:
    """A case that was not exported.

    Attributes
    ----------
    option : option of the command that includes the case; empty if there is none
    detail : the error as a sentence; empty if ``reason`` says everything
    """

    case: str
    reason: Reason
    option: str = ""
    detail: str = ""


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    Attributes
    ----------
    out : output folder
    written : the files or the folder written, without ``origins.csv``
    masks, left_out : of formats with one mask per case
    details : sentences on what was written, of other formats
    """

    out: Path
    written: list[Path]
    masks: Sequence[ExportedMask] = ()
    left_out: Sequence[LeftOutCase] = field(default=())
    details: Sequence[str] = ()

    @property
    def document(self) -> Path | None:
        """A page to read, if the export wrote one."""
        return next((path for path in self.written if path.suffix == ".html"), None)

    def describe(self) -> str:
        """Describe the result in one or two sentences."""
        if not self.masks:
            names = ", ".join(path.name for path in self.written)
            return f"Exported {names} to {self.out}."
        total = len(self.masks) + len(self.left_out)
        text = f"Exported {len(self.masks)} of {total} case{'' if total == 1 else 's'}"
        n_predicted = sum(mask.origin.is_predicted for mask in self.masks)
        n_partial = sum(mask.origin is MaskOrigin.PARTIAL for mask in self.masks)
        parts = [f"{n_predicted} from predictions"] if n_predicted else []
        parts += [f"{n_partial} drawn in part"] if n_partial else []
        text += f" ({', '.join(parts)})" if parts else ""
        text += f" to {self.out}."
        if self.left_out:
            text += f" Left out: {summarize_reasons([case.reason for case in self.left_out])}."
        return text
