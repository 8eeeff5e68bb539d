"""A project on disk: cases, classes, labels, runs and predictions in one folder.

Scans are referenced, never copied or altered. Every change reads ``project.json`` again under a
lock, changes it and writes it whole, so that two windows do not undo each other's work.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_dycon import io
from napari_dycon.core.atomic import atomic_write_many, ensure_dir, write_json
from napari_dycon.core.containment import ensure_links_within, ensure_within
from napari_dycon.core.locks import folder_lock
from napari_dycon.core.types import UNANNOTATED, Array, ItemProgressCallback
from napari_dycon.core.untrusted import read_json
from napari_dycon.errors import DyconError, GeometryError, ProjectError, UserError
from napari_dycon.io.volume import Volume
from napari_dycon.project import manifest
from napari_dycon.project.external_images import external_folders, reject_network_path
from napari_dycon.project.importing.case_import import (
    OnSkip,
    TargetProject,
    channel_paths,
    commit_cases,
    label_file_path,
    load_new_cases,
)
from napari_dycon.project.importing.discovery import Scan, read_scan
from napari_dycon.project.label_rules import check_values, compute_label_status
from napari_dycon.project.migrations import SCHEMA_VERSION
from napari_dycon.project.models import (
    Case,
    ClassInfo,
    ProjectManifest,
    Split,
    Status,
    classes_from_names,
    get_palette_color,
    validate_manifest,
)
from napari_dycon.project.runs.run import (
    Run,
    check_run,
    create_run,
    list_runs,
    validate_case_metadata,
)
from napari_dycon.project.trusted_projects import trust

PredictionKind = Literal["mask", "uncertainty", "disagreement"]


class Project:
    """A project folder that is open."""

    def __init__(self, path: Path, file: ProjectManifest, read_only_reason: str = "") -> None:
        self.path = path
        self.read_only_reason = read_only_reason  # why nothing may be changed; empty when it may
        self._manifest = file

    # ---- Making and opening ------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: Path | str,
        *,
        classes: Sequence[ClassInfo] | None = None,
        channels: Sequence[str] = ("image",),
        name: str | None = None,
    ) -> Project:
        """Make an empty project in a new or empty folder."""
        path = Path(path).absolute()
        manifest.check_target_folder(path)
        values = {
            "schema_version": SCHEMA_VERSION,
            "name": name or path.name,
            "classes": [c.model_dump() for c in classes or classes_from_names(["structure"])],
            "channels": list(channels),
        }
        file = validate_manifest(values, path, "Nothing was made; choose other values.")
        ensure_dir(path / "labels")
        write_json(path / manifest.FILE, file.model_dump())
        trust(path)
        return cls(path, file)

    @classmethod
    def open(cls, path: Path | str, *, read_only_reason: str = "") -> Project:
        """Open a project by its folder or its ``project.json``.

        With ``read_only_reason``, a reason in words, and in a folder that cannot be written to,
        everything that would change it raises ``ProjectError``.
        """
        path = Path(path).absolute()
        folder = path.parent if path.name == manifest.FILE else path
        if not folder.exists():
            raise ProjectError(f"There is no folder {folder}. Check its name.")
        file = manifest.read(folder)
        if not read_only_reason and not manifest.can_write(folder):
            read_only_reason = "its folder cannot be written to"
        return cls(folder, file, read_only_reason)

    @staticmethod
    def is_project(path: Path | str) -> bool:
        """Whether a folder holds a project."""
        return manifest.is_project(path)

    # ---- What it holds -----------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name shown to people."""
        return self._manifest.name

    @property
    def classes(self) -> list[ClassInfo]:
        """Structures to segment, without the background."""
        return list(self._manifest.classes)

    @property
    def channels(self) -> list[str]:
        """Names of the channels of every scan."""
        return list(self._manifest.channels)

    @property
    def cases(self) -> list[Case]:
        """All cases in the project's order."""
        return list(self._manifest.cases)

    def external_folders(self) -> list[Path]:
        """Folders outside the project's own that its scans lie in, sorted; no scan is opened.

        To be shown before a project is used that ``trust.is_known`` does not know.
        """
        return external_folders(
            self.path, (i for case in self._manifest.cases for i in case.images)
        )

    @property
    def cache_folder(self) -> Path:
        """Preprocessed scans; safe to delete."""
        return ensure_within(self.path, self.path / "cache")

    def get_case(self, case_id: str) -> Case:
        """Find a case by its id."""
        if (match := self._manifest.cases_by_id.get(case_id)) is not None:
            return match
        ids = [case.id for case in self._manifest.cases]
        close = difflib.get_close_matches(case_id, ids, 3)
        hint = f" Did you mean {', '.join(close)}?" if close else " List them with `cases`."
        raise UserError(f"There is no case '{case_id}' in {self.name}.{hint}")

    def labeled_cases(self, split: Split = "train") -> list[Case]:
        """Cases of a split that somebody annotated, wholly or in part."""
        return [
            case
            for case in self._manifest.cases
            if case.split == split
            and case.status != "unlabeled"
            and self.label_path(case.id).exists()
        ]

    def has_labeled_cases(self, split: Split = "train") -> bool:
        """Whether any case of a split is annotated, as ``labeled_cases`` tells; looks no
        further."""
        return any(
            self.label_path(case.id).exists()
            for case in self._manifest.cases
            if case.split == split and case.status != "unlabeled"
        )

    def unlabeled_cases(self) -> list[Case]:
        """Cases of the training split that nobody annotated."""
        labeled_ids = {case.id for case in self.labeled_cases()}
        return [c for c in self._manifest.cases if c.split == "train" and c.id not in labeled_ids]

    def image_paths(self, case_id: str) -> list[Path]:
        """Files of a case, one a channel; channels of a 4D file name it again."""
        return [io.get_scan_file(path) for path in self._channel_paths(case_id)]

    def read_image(self, case_id: str) -> Volume:
        """Read a scan: ``(D, H, W)``, or ``(C, D, H, W)`` when there are several channels."""
        case = self.get_case(case_id)
        return read_scan(self._channel_paths(case_id), case_id, resample=case.resampled)

    def read_grid(self, case_id: str) -> Volume:
        """First channel of a case, on whose grid its label lies."""
        case = self.get_case(case_id)
        return io.read_volume(
            self._channel_paths(case_id)[0], check_values=False, resample=case.resampled
        )

    def label_path(self, case_id: str) -> Path:
        """Where a case's label is kept; ``ProjectError`` where links lead out of the project."""
        return ensure_links_within(self.path, label_file_path(self.path, self.get_case(case_id).id))

    def read_label(
        self, case_id: str, *, reference: Volume | None = None
    ) -> npt.NDArray[np.uint8] | None:
        """Read what people drew, uint8 ``(D, H, W)``, 255 = not annotated; ``None`` if nothing.

        With ``like``, the case's scan, a label that lies elsewhere raises ``GeometryError``.
        """
        path = self.label_path(case_id)
        if not path.exists():
            return None
        return io.read_label(path, reference=reference).array

    def label_version(self, case_id: str) -> tuple[int, int, int] | None:
        """State of a label's file, which differs after every write; ``None`` if there is none."""
        try:
            state = self.label_path(case_id).stat()
        except (OSError, ProjectError):
            return None
        return state.st_mtime_ns, state.st_size, state.st_ino

    # ---- Changing it -------------------------------------------------------------------------

    def require_writable(self) -> None:
        """Raise ``ProjectError`` where the project is only looked at."""
        if self.read_only_reason:
            raise ProjectError(
                f"{self.name} is only shown, and nothing of it is changed: {self.read_only_reason}. To "
                "work on it, open it again, or a copy of its folder that you may write to."
            )

    def add_cases(
        self,
        images: Sequence[Path | Sequence[Path]],
        *,
        labels: Mapping[str, Path] | None = None,
        progress: ItemProgressCallback | None = None,
        ids: Sequence[str] | None = None,
        value_map: Mapping[int, int] | None = None,
        resample: bool = False,
        on_note: Callable[[str], None] | None = None,
        on_skip: OnSkip | None = None,
    ) -> list[Case]:
        """Add scans, and labels by case name; all are checked before anything is written.

        A scan that a case refers to already is left out, which a note tells.

        Parameters
        ----------
        images : a file, or one file a channel, of each case
        labels : label files by the case's name, which is that of its first file or its ``ids`` one
        ids : names of the cases, where those of their files will not do
        renamed : values of label files that mean others here
        resample : interpolate uneven or tilted slices to even ones, now and in future
        note : is told what had to be decided to read a scan
        skip : is told which scans cannot be used and are left out, once all were read; without it,
            and when no scan can be used, the first such error is raised and nothing is added
        """
        self.require_writable()
        ensure_within(self.path, self.path / "labels")
        self.reload()
        image_groups = [[item] if isinstance(item, (str, Path)) else list(item) for item in images]
        scans = []
        for number, group in enumerate(image_groups):
            paths = tuple(Path(path).absolute() for path in group)
            scans.append(Scan(ids[number] if ids else io.scan_name(paths[0]), paths))
        new_cases = load_new_cases(
            TargetProject(self.path, self.channels, self.classes, self.cases),
            scans,
            labels=labels,
            value_map=value_map,
            resample=resample,
            progress=progress,
            on_note=on_note,
            on_skip=on_skip,
        )
        with commit_cases(self.path, new_cases) as add_to_manifest:
            self._edit_manifest(add_to_manifest)
        return [new.case for new in new_cases]

    @contextlib.contextmanager
    def lock_labels(self) -> Iterator[None]:
        """Keep other windows and machines from saving labels between reading and saving one."""
        self.require_writable()
        folder = ensure_within(self.path, self.path / "labels")
        ensure_dir(folder, existing_root=self.path)
        with folder_lock(folder):
            yield

    def save_label(
        self,
        case_id: str,
        array: Array,
        *,
        status: Status | None = None,
        reference: Volume | None = None,
    ) -> None:
        """Save what was drawn: uint8 ``(D, H, W)``, and set the status that follows from it.

        A reviewed case stays reviewed as long as all of it is annotated. ``like`` is the case's
        scan where it is at hand; otherwise its file is read for the grid.
        """
        self.require_writable()
        reference = reference or self.read_grid(case_id)
        if array.shape != reference.shape:
            raise GeometryError(
                f"A label of {array.shape} voxels does not fit case {case_id} of {reference.shape}."
            )
        check_values(array, self.classes, f"The label of {case_id}")
        path = self.label_path(case_id)
        ensure_dir(path.parent, existing_root=self.path)
        new_status = status or compute_label_status(array)
        # A case that counts as unlabeled is neither learned from nor exported: a crash in between
        # must not leave a label without its status. A status without a label does no harm.
        if self.get_case(case_id).status == "unlabeled" != new_status:
            with contextlib.suppress(DyconError):  # the label must not wait; told below
                self.set_status(case_id, new_status)
        io.write_mask(array, reference=reference, path=path)
        self.reload()  # another window may have changed the status
        if (
            new_status == "labeled"
            and self.get_case(case_id).status == "reviewed"
            and status is None
        ):
            new_status = "reviewed"
        if new_status != self.get_case(case_id).status:
            self.set_status(case_id, new_status)

    def set_status(self, case_id: str, status: Status) -> None:
        """Set how far a case is annotated."""
        self._update_case(case_id, status=status)

    def set_split(self, case_id: str, split: Split) -> None:
        """Use a case for training or keep it for validation."""
        self._update_case(case_id, split=split)

    def add_class(self, name: str, color: str | None = None) -> ClassInfo:
        """Add a structure to segment, with the next free value."""
        used = {c.value for c in self.classes}
        value = next((v for v in range(1, UNANNOTATED) if v not in used), None)
        if value is None:
            raise ProjectError("A project holds at most 254 classes.")
        info = {
            "value": value,
            "name": name.strip(),
            "color": color or get_palette_color(len(used)),
        }
        self._edit_manifest(lambda values: values["classes"].append(info))
        return self.classes[-1]

    def update_class(
        self, value: int, *, name: str | None = None, color: str | None = None
    ) -> None:
        """Rename or recolor a structure."""
        changes = {k: v for k, v in (("name", name), ("color", color)) if v is not None}

        def change(values: dict[str, Any]) -> None:
            for item in values["classes"]:
                if item["value"] == value:
                    item.update(changes)

        self._edit_manifest(change)

    def reload(self) -> None:
        """Read ``project.json`` again, which another window may have changed."""
        self._manifest = manifest.read(self.path)

    # ---- Runs and predictions ----------------------------------------------------------------

    def runs(self) -> list[Run]:
        """All runs, the oldest first."""
        return list_runs(self.path / "runs")

    def get_run(self, run_id: str | None = None) -> Run:
        """Find a run, by default the newest that can predict."""
        runs = self.runs()
        if run_id is None:
            usable = [run for run in runs if run.has_weights]
            if not usable:
                raise ProjectError(
                    f"{self.name} has no trained weights yet. Train first, or wait for the first "
                    "checkpoint of the run at work; then predict."
                )
            return check_run(usable[-1], self.path)
        for run in runs:
            if run.id == run_id:
                return check_run(run, self.path)
        known = ", ".join(run.id for run in runs) or "none"
        raise ProjectError(f"There is no run '{run_id}' in {self.name}. Runs: {known}.")

    def create_run(self, method: str, config: dict[str, Any]) -> Run:
        """Make the folder of a new run, ``runs/001-dycon``, with its settings."""
        self.require_writable()
        return create_run(self.path / "runs", method, config)

    def prediction_path(self, run_id: str, case_id: str, kind: PredictionKind = "mask") -> Path:
        """Where a prediction is kept; ``ProjectError`` where links lead out of the project."""
        suffix = "" if kind == "mask" else f"_{kind}"
        name = f"{self.get_case(case_id).id}{suffix}.nii.gz"
        return ensure_links_within(self.path, self.path / "predictions" / run_id / name)

    def read_prediction(
        self,
        run_id: str,
        case_id: str,
        kind: PredictionKind = "mask",
        *,
        reference: Volume | None = None,
    ) -> Any:
        """Read a mask (uint8) or a map (float32), ``(D, H, W)``; ``None`` if there is none.

        With ``like``, the case's scan, one that lies elsewhere raises ``GeometryError``.
        """
        path = self.prediction_path(run_id, case_id, kind)
        if not path.exists():
            return None
        if kind == "mask":
            return io.read_label(path, reference=reference).array
        return io.read_map(path, reference=reference)

    def write_prediction(
        self,
        run_id: str,
        case_id: str,
        mask: Array,
        uncertainty: Array,
        disagreement: Array,
        *,
        reference: Volume | None = None,
    ) -> None:
        """Write canonical arrays ``(D, H, W)`` on the scan's own grid.

        ``like`` is the case's scan, where it was read already; its voxels are not needed.
        """
        self.require_writable()
        reference = self.read_grid(case_id) if reference is None else reference
        self.get_run(run_id)  # no folder for a run that does not exist
        # The mask last: who sees it finds maps of the same prediction.
        kinds: tuple[PredictionKind, ...] = ("uncertainty", "disagreement", "mask")
        targets = [self.prediction_path(run_id, case_id, kind) for kind in kinds]
        ensure_dir(targets[0].parent, existing_root=self.path)
        with atomic_write_many(targets) as files:
            io.write_map(uncertainty, reference=reference, path=files[0])
            io.write_map(disagreement, reference=reference, path=files[1])
            io.write_mask(mask, reference=reference, path=files[2])

    def case_metadata_path(self, run_id: str, case_id: str) -> Path:
        """Where facts are kept, wherever links lead; to read them use ``load_case_metadata``."""
        return self.path / "predictions" / run_id / f"{self.get_case(case_id).id}.json"

    def save_case_metadata(self, run_id: str, case_id: str, metadata: dict[str, Any]) -> None:
        """Write what a run found out about a scan, as JSON beside its prediction."""
        self.require_writable()
        self.get_run(run_id)
        path = ensure_within(self.path, self.case_metadata_path(run_id, case_id))
        ensure_dir(path.parent, existing_root=self.path)
        write_json(path, metadata)

    def load_case_metadata(self, run_id: str, case_id: str) -> dict[str, Any]:
        """Read what a run found out about a scan; empty when there is nothing."""
        try:
            path = ensure_links_within(self.path, self.case_metadata_path(run_id, case_id))
            return validate_case_metadata(read_json(path))
        except (OSError, ValueError, ProjectError):
            return {}

    def predictions(self, case_id: str) -> list[str]:
        """Runs that predicted a case, the newest run first."""
        return [run.id for run in reversed(self.runs()) if self._has_prediction(run.id, case_id)]

    def newest_predictions(self) -> dict[str, str]:
        """Newest run that predicted each case, by case id; as ``predictions`` for all cases."""
        runs = [run.id for run in reversed(self.runs())]
        newest: dict[str, str] = {}
        for case in self._manifest.cases:
            for run in runs:
                if self._has_prediction(run, case.id):
                    newest[case.id] = run
                    break
        return newest

    # ---- Inside ------------------------------------------------------------------------------

    def _has_prediction(self, run_id: str, case_id: str) -> bool:
        try:
            return self.prediction_path(run_id, case_id).exists()
        except ProjectError:  # one behind a link out of the project counts as none
            return False

    def _channel_paths(self, case_id: str) -> list[Path]:
        images = self.get_case(case_id).images
        for image in images:
            reject_network_path(image, self.path)
        return channel_paths(self.path, images)

    def _update_case(self, case_id: str, **changes: Any) -> None:
        self.get_case(case_id)

        def change(values: dict[str, Any]) -> None:
            for item in values["cases"]:
                if item["id"] == case_id:
                    item.update(changes)

        self._edit_manifest(change)

    def _edit_manifest(self, edit: Callable[[dict[str, Any]], object]) -> None:
        """Read, change, check and write ``project.json`` under the lock."""
        self.require_writable()
        self._manifest = manifest.edit_manifest(self.path, edit)
