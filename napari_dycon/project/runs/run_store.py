"""Runs of a project: ``runs/001-dycon`` and so on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_dycon.core.atomic import write_json
from napari_dycon.core.containment import ensure_within, is_external_link
from napari_dycon.errors import ProjectError
from napari_dycon.project.case_ids import is_case_id
from napari_dycon.project.manifest import ManifestStore
from napari_dycon.project.runs.run import Run


class RunStore:
    """Training runs of one project."""

    def __init__(self, manifest: ManifestStore) -> None:
        self._manifest = manifest

    @property
    def _folder(self) -> Path:
        return self._manifest.folder / "runs"

    def list(self) -> Sequence[Run]:
        """List all runs, the oldest first.

        Folders that are links to elsewhere, or whose name is not valid, are left out.
        """
        folder = self._folder
        if not folder.is_dir() or is_external_link(folder.parent, folder):
            return []
        runs = [
            Run(path)
            for path in folder.iterdir()
            if is_case_id(path.name)
            and not is_external_link(folder.parent, path)
            and (path / "config.json").is_file()
        ]
        return sorted(runs, key=lambda run: (len(run.id.split("-")[0]), run.id))

    def get(self, run_id: str | None = None) -> Run:
        """Find a run, by default the newest one with weights."""
        runs, name = self.list(), self._manifest.content.name
        if run_id is None:
            usable = [run for run in runs if run.has_weights]
            if not usable:
                raise ProjectError(
                    f"{name} has no trained weights yet. Train first, or wait for the first "
                    "checkpoint of the current run; then predict."
                )
            return self._check_links(usable[-1])
        for run in runs:
            if run.id == run_id:
                return self._check_links(run)
        known = ", ".join(run.id for run in runs) or "none"
        raise ProjectError(f"Run '{run_id}' does not exist in {name}. Runs: {known}.")

    def create(self, method: str, config: dict[str, Any]) -> Run:
        """Create the folder of a new run, such as ``runs/001-dycon``, with its settings."""
        self._manifest.require_writable()
        folder = self._folder
        ensure_within(folder.parent, folder)
        try:
            folder.mkdir(exist_ok=True)
            last = max(
                (int(p.name[:3]) for p in folder.iterdir() if p.name[:3].isdecimal()), default=0
            )
            for run_number in range(last + 1, last + 100):
                run = Run(folder / f"{run_number:03d}-{method}")
                try:
                    run.folder.mkdir()
                except FileExistsError:
                    continue
                try:
                    write_json(run.config_path, config)
                except ProjectError:
                    with contextlib.suppress(OSError):
                        run.folder.rmdir()
                    raise
                return run
        except OSError as error:
            raise ProjectError(
                f"No run can be started in {folder}: {error.strerror}. Check that the project "
                "folder is writable."
            ) from error
        raise ProjectError(f"No unused run name was found in {folder}. Remove old runs.")

    def _check_links(self, run: Run) -> Run:
        """Reject a run with a link out of the project, since the engine writes to its files."""
        project_folder = self._manifest.folder
        for root, folders, files in os.walk(run.folder):
            for path in (Path(root, name) for name in (*folders, *files)):
                if is_external_link(project_folder, path):
                    ensure_within(project_folder, path)  # raises with a message
        return run
