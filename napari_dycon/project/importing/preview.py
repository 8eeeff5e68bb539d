"""What a new project would contain, found without reading voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_dycon.core.wording import format_count
from napari_dycon.project.importing.case_import import SkippedScan
from napari_dycon.project.importing.import_plan import plan_import

MAX_NAMES = 4  # channels and structures that are named

# Names of folders that say nothing about their content.
GENERIC_NAMES = frozenset(
    [
        *("scans", "scan", "images", "image", "imagestr", "imagests", "data", "dataset", "files"),
        *("dicom", "dcm", "nifti", "nii", "raw", "mr", "mri", "ct", "train", "training", "input"),
        *("volumes", "nrrd", "series"),
    ]
)
MAX_LEVELS = 3  # of folders that a project may be named after
MAX_NUMBER = 1000  # of folders with the same name


@dataclass(frozen=True)
class ImportPreview:
    """Content of a new project.

    Attributes
    ----------
    structures : names of the structures; empty if they are found when the labels are read
    layout : known layout of the folder; empty if it has none
    left_out : messages about cases that cannot be used
    """

    n_cases: int
    channels: Sequence[str]
    n_labels: int
    structures: Sequence[str]
    layout: str
    left_out: Sequence[str]

    def describe(self) -> str:
        """Describe the content, such as "2 cases, 2 channels (flair, t1), 1 label"."""
        parts = [format_count(self.n_cases, "case")]
        if len(self.channels) > 1:
            parts.append(f"{len(self.channels)} channels ({_list_some(self.channels)})")
        parts.append(format_count(self.n_labels, "label") if self.n_labels else "no labels")
        texts = [", ".join(parts)]
        if self.structures:
            noun = "structure" if len(self.structures) == 1 else "structures"
            texts.append(f"{noun}: {_list_some(self.structures)}")
        if self.layout:
            texts.append(f"{self.layout} layout")
        text = f"{'; '.join(texts)}."
        if self.left_out:
            text += f" {format_count(len(self.left_out), 'case')} left out: {self.left_out[0]}"
        return text


def preview_import(
    images: Path,
    labels: Path | None = None,
    classes: Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
) -> ImportPreview:
    """Find what a new project would contain; arguments and errors as of ``plan_import``.

    Headers of DICOM files are read, which can take a while for a large folder. Labels are not read.
    """
    skipped: list[SkippedScan] = []
    # Without names, the labels would be read to find the structures.
    names = ["structure"] if labels is not None and not classes else classes
    plan = plan_import(images, labels, names, channels=channels, on_skip=skipped.append)
    is_named = bool(classes) or bool(plan.layout)
    return ImportPreview(
        len(plan.scans),
        plan.channels,
        len(plan.labels),
        [info.name for info in plan.classes] if is_named else [],
        plan.layout,
        [str(one.error) for one in skipped],
    )


def suggest_project_folder(images: Path) -> Path:
    """Suggest a new folder for a project beside its scans.

    It is named after the first folder, from that of the scans up, whose name says something.
    """
    names = [path.name for path in (images, *images.parents) if path.name]
    own = [name for name in names[:MAX_LEVELS] if name.casefold() not in GENERIC_NAMES]
    name = next(iter(own), images.name)
    folder = images.parent / f"{name}-dycon"
    for number in range(2, MAX_NUMBER):
        if not folder.exists():
            break
        folder = images.parent / f"{name}-dycon-{number}"
    return folder


def _list_some(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMES]) + (", …" if len(names) > MAX_NAMES else "")
