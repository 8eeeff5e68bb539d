"""A project on disk: cases, classes, labels, runs and predictions in one folder.

Scans are referenced, never copied or altered. Every change reads ``project.json`` again under a
lock, changes it and writes it atomically, so that two sessions do not undo each other's changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from napari_dycon import io
from napari_dycon.core.atomic import ensure_dir, write_json
from napari_dycon.core.containment import ensure_within
from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.errors import ProjectError
from napari_dycon.io.volume import Volume
from napari_dycon.project import case_images, manifest
from napari_dycon.project.editing.case_names import rename_case
from napari_dycon.project.editing.removed_cases import RemovedCases
from napari_dycon.project.editing.structures import StructureStore
from napari_dycon.project.external_images import external_folders
from napari_dycon.project.importing.case_import import (
    OnSkip,
    TargetProject,
    commit_cases,
    load_new_cases,
)
from napari_dycon.project.importing.discovery import Scan
from napari_dycon.project.label_store import LabelStore
from napari_dycon.project.models import (
    Case,
    ClassInfo,
    Split,
    Status,
    classes_from_names,
    validate_manifest,
)
from napari_dycon.project.prediction_store import PredictionStore
from napari_dycon.project.runs.run_store import RunStore
from napari_dycon.project.schema_version import SCHEMA_VERSION
from napari_dycon.project.trusted_projects import trust


class Project:
    """An open project folder.

    Attributes
    ----------
    labels, runs, predictions : stores of its folders
    removed_cases : cases that were removed, with their labels
    structures : changes to the structures to segment
    """

    def __init__(self, manifest_store: manifest.ManifestStore) -> None:
        self._manifest = manifest_store
        self.labels = LabelStore(manifest_store)
        self.runs = RunStore(manifest_store)
        self.predictions = PredictionStore(manifest_store, self.runs)
        self.removed_cases = RemovedCases(manifest_store, self.labels)
        self.structures = StructureStore(manifest_store, self.labels)

    # ---- Creating and opening -----------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: Path | str,
        *,
        classes: Sequence[ClassInfo] | None = None,
        channels: Sequence[str] = ("image",),
        name: str | None = None,
    ) -> Project:
        """Create an empty project in a new or empty folder."""
        path = Path(path).absolute()
        manifest.check_target_folder(path)
        values = {
            "schema_version": SCHEMA_VERSION,
            "name": name or path.name,
            "classes": [c.model_dump() for c in classes or classes_from_names(["structure"])],
            "channels": list(channels),
        }
        file = validate_manifest(values, path, "Nothing was created; choose other values.")
        ensure_dir(path / "labels")
        write_json(path / manifest.FILE, file.model_dump())
        trust(path)
        return cls(manifest.ManifestStore(path, file))

    @classmethod
    def open(cls, path: Path | str, *, read_only_reason: str | None = None) -> Project:
        """Open a project by its folder or its ``project.json``.

        With a ``read_only_reason``, or in a folder that is not writable, everything that would
        change the project raises ``ProjectError``.
        """
        path = Path(path).absolute()
        folder = path.parent if path.name == manifest.FILE else path
        if not folder.exists():
            raise ProjectError(f"Folder {folder} does not exist. Check its name.")
        file = manifest.read(folder)
        if read_only_reason is None and not manifest.can_write(folder):
            read_only_reason = "its folder is not writable"
        return cls(manifest.ManifestStore(folder, file, read_only_reason))

    @staticmethod
    def is_project(path: Path | str) -> bool:
        """Check whether a folder contains a project."""
        return manifest.is_project(path)

    # ---- Content ------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """Folder of the project."""
        return self._manifest.folder

    @property
    def read_only_reason(self) -> str | None:
        """Why the project cannot be changed; ``None`` if it can."""
        return self._manifest.read_only_reason

    @property
    def name(self) -> str:
        """Name shown to the user."""
        return self._manifest.content.name

    @property
    def classes(self) -> list[ClassInfo]:
        """Structures to segment, without the background."""
        return list(self._manifest.content.classes)

    @property
    def channels(self) -> list[str]:
        """Names of the channels of every scan."""
        return list(self._manifest.content.channels)

    @property
    def cases(self) -> list[Case]:
        """All cases in the project's order."""
        return list(self._manifest.content.cases)

    def external_folders(self) -> list[Path]:
        """List the folders outside the project that contain its scans; no scan is opened.

        To be shown to the user before opening a project that is not in ``trusted_projects``.
        """
        cases = [*self.cases, *(removed.case for removed in self.removed_cases.list())]
        return external_folders(self.path, (image for case in cases for image in case.images))

    @property
    def cache_folder(self) -> Path:
        """Folder of preprocessed scans; safe to delete."""
        return ensure_within(self.path, self.path / "cache")

    def get_case(self, case_id: str) -> Case:
        """Find a case by its id."""
        return self._manifest.get_case(case_id)

    def labeled_cases(self, split: Split = "train") -> list[Case]:
        """List the cases of a split that are completely or partly annotated."""
        return [
            case
            for case in self.cases
            if case.split == split
            and case.status != Status.UNLABELED
            and self.labels.path(case.id).exists()
        ]

    def has_labeled_cases(self, split: Split = "train") -> bool:
        """Check whether ``labeled_cases`` would list any case; stops at the first one."""
        return any(
            self.labels.path(case.id).exists()
            for case in self.cases
            if case.split == split and case.status != Status.UNLABELED
        )

    def unlabeled_cases(self) -> list[Case]:
        """List the cases of the training split without annotation."""
        labeled_ids = {case.id for case in self.labeled_cases()}
        return [c for c in self.cases if c.split == "train" and c.id not in labeled_ids]

    def image_paths(self, case_id: str) -> list[Path]:
        """Return the files of a case, one per channel; a 4D file is repeated for each channel."""
        return case_images.image_paths(self.path, self.get_case(case_id))

    def read_image(self, case_id: str) -> Volume:
        """Read a scan: ``(D, H, W)``, or ``(C, D, H, W)`` if there are several channels."""
        return case_images.read_image(self.path, self.get_case(case_id))

    def read_grid(self, case_id: str) -> Volume:
        """Read the first channel of a case, whose grid is that of its label."""
        return case_images.read_grid(self.path, self.get_case(case_id))

    # ---- Changes -------------------------------------------------------------------------------

    def require_writable(self) -> None:
        """Raise ``ProjectError`` if the project is read-only."""
        self._manifest.require_writable()

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

        A scan that is already in the project is left out, and ``on_note`` is called.

        Parameters
        ----------
        images : a file, or one file per channel, of each case
        labels : label files by case name, which is that of the first file or the one in ``ids``
        ids : names of the cases, to use instead of file names
        value_map : values of label files that are replaced by others
        resample : resample irregular or tilted slices to regular spacing, now and in future
        on_note : called with each decision that was made to read a scan
        on_skip : called with each scan that cannot be used and is left out, once all were read;
            without it, or if no scan can be used, the first such error is raised and nothing is
            added
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
            self._manifest.edit(add_to_manifest)
        return [new.case for new in new_cases]

    def set_status(self, case_id: str, status: Status) -> None:
        """Set the annotation status of a case."""
        self._manifest.update_case(case_id, status=status)

    def set_split(self, case_id: str, split: Split) -> None:
        """Use a case for training or keep it for validation."""
        self._manifest.update_case(case_id, split=split)

    def rename_case(self, case_id: str, name: str) -> None:
        """Set the name that is shown for a case; an empty one shows its id again.

        The id, which runs, predictions and other sessions refer to, does not change.

        Raises
        ------
        UserError
            Another case has this name.
        """
        rename_case(self._manifest, case_id, name)

    def add_class(self, name: str, color: str | None = None) -> ClassInfo:
        """Add a structure to segment; see ``StructureStore.add``."""
        return self.structures.add(name, color)

    def update_class(
        self, value: int, *, name: str | None = None, color: str | None = None
    ) -> None:
        """Rename or recolor a structure."""
        self.structures.update(value, name=name, color=color)

    def reload(self) -> None:
        """Read ``project.json`` again, which another session may have changed."""
        self._manifest.reload()
