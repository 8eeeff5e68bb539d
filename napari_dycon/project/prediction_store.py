"""Predictions of a project: ``predictions/RUN/CASE.nii.gz``, with maps and metadata.

A preliminary prediction, of one network alone, is shown while the complete one is computed. It is
in ``predictions/RUN/preliminary/``, where no export, report or ranking looks, and the complete
prediction replaces it. If that is canceled, it stays, and is shown as preliminary.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import ConfigDict, Field

from napari_dycon import io
from napari_dycon.core.atomic import atomic_write_many, ensure_dir, write_json
from napari_dycon.core.containment import ensure_links_within, ensure_within
from napari_dycon.core.types import Array
from napari_dycon.core.untrusted import read_json
from napari_dycon.errors import ProjectError
from napari_dycon.io.volume import Volume
from napari_dycon.project.case_images import read_grid
from napari_dycon.project.editing.deleted_structures import read_deleted_values
from napari_dycon.project.manifest import ManifestStore
from napari_dycon.project.prediction_origin import PredictionOrigin
from napari_dycon.project.runs.run_store import RunStore
from napari_dycon.project.untrusted_model import UntrustedModel

PredictionKind = Literal["mask", "uncertainty", "disagreement"]
PRELIMINARY_FOLDER = "preliminary"
MAX_FEATURES = 10_000
Feature = Annotated[float, Field(ge=-1e30, le=1e30)]


class PredictionMetadata(UntrustedModel):
    """What a run computed for a case; a field is ``None`` if it is missing or invalid."""

    model_config = ConfigDict(extra="allow")

    score: Annotated[float, Field(ge=0, le=1e6)] | None = Field(
        default=None, description="Mean uncertainty of the predicted foreground."
    )
    features: Annotated[list[Feature], Field(max_length=MAX_FEATURES)] | None = Field(
        default=None, description="Features of the scan, for active learning."
    )
    origin: PredictionOrigin | None = Field(
        default=None, description="The run that made the prediction; missing in older projects."
    )


class NewestPrediction(NamedTuple):
    """The prediction of a case to show: its run, and whether it is preliminary."""

    run: str
    is_preliminary: bool


class PredictionStore:
    """Predictions of the cases of one project by its runs."""

    def __init__(self, manifest: ManifestStore, runs: RunStore) -> None:
        self._manifest = manifest
        self._runs = runs

    @property
    def _folder(self) -> Path:
        return self._manifest.folder / "predictions"

    def path(
        self,
        run_id: str,
        case_id: str,
        kind: PredictionKind = "mask",
        *,
        preliminary: bool = False,
    ) -> Path:
        """Return the path of a prediction; ``ProjectError`` if links point outside the project."""
        suffix = "" if kind == "mask" else f"_{kind}"
        name = f"{self._manifest.get_case(case_id).id}{suffix}.nii.gz"
        folder = self._folder / run_id
        folder = folder / PRELIMINARY_FOLDER if preliminary else folder
        return ensure_links_within(self._manifest.folder, folder / name)

    def read(
        self,
        run_id: str,
        case_id: str,
        kind: PredictionKind = "mask",
        *,
        reference: Volume | None = None,
        preliminary: bool = False,
    ) -> Any:
        """Read a mask (uint8) or a map (float32), ``(D, H, W)``; ``None`` if there is none.

        With ``reference``, the case's scan, one on another grid raises ``GeometryError``.
        """
        path = self.path(run_id, case_id, kind, preliminary=preliminary)
        if not path.exists():
            return None
        if kind == "mask":
            return self._clear_deleted(io.read_label(path, reference=reference).array)
        return io.read_map(path, reference=reference)

    def write(
        self,
        run_id: str,
        case_id: str,
        mask: Array,
        uncertainty: Array,
        disagreement: Array,
        *,
        reference: Volume | None = None,
        metadata: PredictionMetadata | None = None,
    ) -> None:
        """Write arrays ``(D, H, W)`` in RAS+ orientation on the scan's own grid.

        A preliminary prediction of the run is removed.

        Parameters
        ----------
        reference : the case's scan if it was already read; its voxels are not needed
        metadata : replaces that of the case together with the arrays
        """
        self._manifest.require_writable()
        if reference is None:
            reference = read_grid(self._manifest.folder, self._manifest.get_case(case_id))
        self._runs.get(run_id)  # no folder for a run that does not exist
        # The mask last, so that its maps exist when it does.
        kinds: tuple[PredictionKind, ...] = ("uncertainty", "disagreement", "mask")
        targets = [self.path(run_id, case_id, kind) for kind in kinds]
        if metadata is not None:
            path = self.metadata_path(run_id, case_id)
            targets.insert(0, ensure_within(self._manifest.folder, path))
        ensure_dir(targets[0].parent, existing_root=self._manifest.folder)
        with atomic_write_many(targets) as files:
            io.write_map(uncertainty, reference=reference, path=files[-3])
            io.write_map(disagreement, reference=reference, path=files[-2])
            io.write_mask(mask, reference=reference, path=files[-1])
            if metadata is not None:
                write_json(files[0], metadata.model_dump(mode="json", exclude_unset=True))
        self._remove_preliminary(run_id, case_id)

    def write_preliminary(
        self, run_id: str, case_id: str, mask: Array, uncertainty: Array, *, reference: Volume
    ) -> None:
        """Write a prediction that is shown until the complete one is written."""
        self._manifest.require_writable()
        self._runs.get(run_id)
        kinds: tuple[PredictionKind, ...] = ("uncertainty", "mask")
        targets = [self.path(run_id, case_id, kind, preliminary=True) for kind in kinds]
        ensure_dir(targets[0].parent, existing_root=self._manifest.folder)
        with atomic_write_many(targets) as files:
            io.write_map(uncertainty, reference=reference, path=files[0])
            io.write_mask(mask, reference=reference, path=files[1])

    def _remove_preliminary(self, run_id: str, case_id: str) -> None:
        # The mask first: without it, the prediction does not exist.
        for kind in ("mask", "uncertainty"):
            with contextlib.suppress(OSError, ProjectError):
                self.path(run_id, case_id, kind, preliminary=True).unlink(missing_ok=True)

    def find_newest(self, case_id: str) -> NewestPrediction | None:
        """Find the prediction of a case to show: of the newest run that has one.

        A preliminary prediction is chosen only if it is newer than the complete one of its run.
        """
        for run in reversed(self._runs.list()):
            is_complete = self._exists(run.id, case_id)
            if self._is_preliminary_newer(run.id, case_id):
                return NewestPrediction(run.id, True)
            if is_complete:
                return NewestPrediction(run.id, False)
        return None

    def _is_preliminary_newer(self, run_id: str, case_id: str) -> bool:
        """Whether a preliminary prediction is newer than the complete one, or the only one.

        Writing the complete prediction removes it; times are compared in case a process ended
        between the two.
        """
        try:
            written = self.path(run_id, case_id, preliminary=True).stat().st_mtime_ns
            complete = self.path(run_id, case_id)
            return not complete.exists() or complete.stat().st_mtime_ns < written
        except (OSError, ProjectError):
            return False

    def metadata_path(self, run_id: str, case_id: str) -> Path:
        """Return the path of a case's metadata, without checking links; see ``read_metadata``."""
        return self._folder / run_id / f"{self._manifest.get_case(case_id).id}.json"

    def write_metadata(self, run_id: str, case_id: str, metadata: PredictionMetadata) -> None:
        """Write the metadata that a run computed for a scan, as JSON."""
        self._manifest.require_writable()
        self._runs.get(run_id)
        root = self._manifest.folder
        path = ensure_within(root, self.metadata_path(run_id, case_id))
        ensure_dir(path.parent, existing_root=root)
        write_json(path, metadata.model_dump(mode="json", exclude_unset=True))

    def read_metadata(self, run_id: str, case_id: str) -> PredictionMetadata:
        """Read the metadata that a run computed for a scan; empty if there is none."""
        try:
            path = ensure_links_within(self._manifest.folder, self.metadata_path(run_id, case_id))
            return PredictionMetadata.model_validate(read_json(path))
        except (OSError, ValueError, ProjectError):
            return PredictionMetadata()

    def list_run_ids(self, case_id: str) -> list[str]:
        """List the runs that predicted a case, the newest run first."""
        return [run.id for run in reversed(self._runs.list()) if self._exists(run.id, case_id)]

    def count(self, run_id: str) -> int:
        """Count the cases that a run has predicted."""
        return sum(self._exists(run_id, case.id) for case in self._manifest.content.cases)

    def newest_run_ids(self) -> dict[str, str]:
        """Return the newest run that predicted each case, by case id."""
        runs = [run.id for run in reversed(self._runs.list())]
        newest: dict[str, str] = {}
        for case in self._manifest.content.cases:
            for run in runs:
                if self._exists(run, case.id):
                    newest[case.id] = run
                    break
        return newest

    def _clear_deleted(self, mask: Array) -> Array:
        """Make structures background that were deleted since a prediction was written."""
        classes = {info.value for info in self._manifest.content.classes}
        deleted = read_deleted_values(self._manifest.folder) - classes
        if not deleted:
            return mask
        table = np.arange(256, dtype=np.uint8)
        table[list(deleted)] = 0
        cleared: Array = table[mask]
        return cleared

    def _exists(self, run_id: str, case_id: str) -> bool:
        try:
            return self.path(run_id, case_id).exists()
        except ProjectError:  # a prediction behind a link out of the project is ignored
            return False
