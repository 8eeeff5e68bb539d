"""Labels of a project: ``labels/CASE.nii.gz``, uint8 ``(D, H, W)``, 255 = not annotated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_dycon import io
from napari_dycon.core.atomic import ensure_dir
from napari_dycon.core.containment import ensure_links_within, ensure_within
from napari_dycon.core.locks import folder_lock
from napari_dycon.core.types import Array
from napari_dycon.errors import DyconError, GeometryError, ProjectError
from napari_dycon.io.volume import Volume
from napari_dycon.project.case_images import read_grid
from napari_dycon.project.label_rules import check_values, compute_label_status, get_next_status
from napari_dycon.project.manifest import ManifestStore
from napari_dycon.project.models import Status

LABEL_SUFFIX = ".nii.gz"  # of label files


def label_file_path(folder: Path, case_id: str) -> Path:
    """Return the path of a case's label in a project's folder, without checking links."""
    return folder / "labels" / f"{case_id}{LABEL_SUFFIX}"


class LabelStore:
    """Labels of the cases of one project."""

    def __init__(self, manifest: ManifestStore) -> None:
        self._manifest = manifest

    def path(self, case_id: str) -> Path:
        """Return the path of a case's label; ``ProjectError`` if a link leaves the project."""
        folder = self._manifest.folder
        return ensure_links_within(
            folder, label_file_path(folder, self._manifest.get_case(case_id).id)
        )

    def read(
        self, case_id: str, *, reference: Volume | None = None
    ) -> npt.NDArray[np.uint8] | None:
        """Read a label, uint8 ``(D, H, W)``, 255 = not annotated; ``None`` if there is none.

        With ``reference``, the case's scan, a label on another grid raises ``GeometryError``.
        """
        path = self.path(case_id)
        if not path.exists():
            return None
        return io.read_label(path, reference=reference).array

    def version(self, case_id: str) -> tuple[int, int, int] | None:
        """Return a label file's version, which changes with every write; ``None`` without file."""
        try:
            state = self.path(case_id).stat()
        except (OSError, ProjectError):
            return None
        return state.st_mtime_ns, state.st_size, state.st_ino

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Prevent other sessions from saving labels between reading and saving one."""
        self._manifest.require_writable()
        root = self._manifest.folder
        folder = ensure_within(root, root / "labels")
        ensure_dir(folder, existing_root=root)
        with folder_lock(folder):
            yield

    def save(
        self,
        case_id: str,
        array: Array,
        *,
        status: Status | None = None,
        reference: Volume | None = None,
    ) -> None:
        """Save a label, uint8 ``(D, H, W)``, and set the status that follows from it.

        Parameters
        ----------
        status : status to set instead, see ``get_next_status``
        reference : the case's scan if it was already read; otherwise its file is read for the grid
        """
        manifest = self._manifest
        manifest.require_writable()
        reference = reference or read_grid(manifest.folder, manifest.get_case(case_id))
        if array.shape != reference.shape:
            raise GeometryError(
                f"A label of {array.shape} voxels does not fit case {case_id} of {reference.shape}."
            )
        check_values(array, manifest.content.classes, f"The label of {case_id}")
        path = self.path(case_id)
        ensure_dir(path.parent, existing_root=manifest.folder)
        label_status = compute_label_status(array)
        # An unlabeled case is neither trained on nor exported: a crash in between must not leave a
        # label without its status. A status without a label does no harm.
        if manifest.get_case(case_id).status is Status.UNLABELED:
            with contextlib.suppress(DyconError):  # the label is saved first; raised again below
                self._set_next_status(case_id, label_status, status)
        io.write_mask(array, reference=reference, path=path)
        manifest.reload()  # another session may have changed the status
        self._set_next_status(case_id, label_status, status)

    def _set_next_status(
        self, case_id: str, label_status: Status, explicit_status: Status | None
    ) -> None:
        current = self._manifest.get_case(case_id).status
        new_status = get_next_status(current, label_status, explicit_status)
        if new_status != current:
            self._manifest.update_case(case_id, status=new_status)
