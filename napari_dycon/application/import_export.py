"""Imports scans into projects, and exports results from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_dycon.application.labels.autosave import LabelAutosaver
from napari_dycon.application.messages import report_messages, report_notes
from napari_dycon.application.project_opening import ProjectOpener
from napari_dycon.application.prompts import UserPrompt
from napari_dycon.application.state import AppState
from napari_dycon.application.task_runner import TaskRunner
from napari_dycon.core.types import ItemProgressCallback
from napari_dycon.errors import BusyError, IrregularSlicesError
from napari_dycon.project.importing.case_import import SkippedScan
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.importing.discovery import Scan
from napari_dycon.project.importing.patient_folders import resolve_scans
from napari_dycon.project.models import Case
from napari_dycon.project.store import Project

if TYPE_CHECKING:
    from napari_dycon.exports.result import ExportResult

MAX_EXAMPLES = 20


class ImportExport:
    """Creates projects, adds scans to the open one, and exports from it.

    Attributes
    ----------
    is_exporting : whether an export is running; there is one at a time
    exported : emitted with the ``ExportResult`` of each export
    created : emitted with the ``Project`` after it was created and opened
    """

    exported = Signal(object)
    created = Signal(object)

    def __init__(
        self,
        state: AppState,
        task_runner: TaskRunner,
        opener: ProjectOpener,
        autosaver: LabelAutosaver,
    ) -> None:
        self._state = state
        self._task_runner = task_runner
        self._opener = opener
        self._autosaver = autosaver
        self.is_exporting = False

    def create(
        self,
        path: Path | str,
        images: Path | str,
        labels: Path | str | None,
        classes: Sequence[str] | None,
        channels: Sequence[str] | None,
        *,
        scans: Sequence[Scan] | None,
        resample: bool,
    ) -> None:
        """Create a project and open it; see ``Session.create_project``."""
        notes: list[str] = []
        skipped: list[SkippedScan] = []

        def import_scans(progress: ItemProgressCallback) -> Project:
            return create_project(
                path, images, labels, classes, progress, channels=channels, resample=resample,
                on_note=notes.append, on_skip=skipped.append, scans=scans,
            )  # fmt: skip

        def on_done(project: Project) -> None:
            self._opener.set_project(project)
            if self._state.project is project:
                self.created.emit(project)
            report_notes(self._state, notes)
            self._report_skipped(project, skipped)

        def retry_resampled() -> None:
            self.create(path, images, labels, classes, channels, scans=scans, resample=True)

        self._task_runner.submit_with_progress(
            "Creating the project",
            import_scans,
            on_done,
            lambda error: self._handle_error(error, retry_resampled),
            on_cancel=lambda: self._report_cancel("No project was created."),
        )

    def add_paths(self, paths: Sequence[Path | str], *, resample: bool) -> None:
        """Add scans from files and folders; see ``Session.add_cases``."""
        project = self._state.require_project()
        examples = self.list_example_files()
        skipped: list[SkippedScan] = []

        def find_new_scans() -> list[Scan]:
            return resolve_scans(
                [Path(path) for path in paths],
                project.channels,
                examples=examples,
                on_skip=skipped.append,
            )

        def retry_resampled() -> None:
            self.add_paths(paths, resample=True)

        self._add_found(project, find_new_scans, skipped, retry_resampled, resample=resample)

    def list_example_files(self) -> list[list[Path]]:
        """Return files of some cases, one per channel, as examples for channel assignment."""
        project = self._state.require_project()
        return [project.image_paths(case.id) for case in project.cases[:MAX_EXAMPLES]]

    def add_scans(
        self,
        scans: Sequence[Scan],
        *,
        resample: bool = False,
        labels: Mapping[str, Path] | None = None,
        value_map: Mapping[int, int] | None = None,
    ) -> None:
        """Add scans whose channels are known; see ``Session.add_scans``."""
        options = {"labels": labels, "value_map": value_map}

        def retry_resampled() -> None:
            self.add_scans(scans, resample=True, labels=labels, value_map=value_map)

        self._add_found(
            self._state.require_project(),
            lambda: scans,
            [],
            retry_resampled,
            resample=resample,
            **options,
        )

    def _add_found(
        self,
        project: Project,
        find_new_scans: Callable[[], Sequence[Scan]],
        skipped: list[SkippedScan],
        retry_resampled: Callable[[], None],
        **options: Any,
    ) -> None:
        notes: list[str] = []

        def import_scans(progress: ItemProgressCallback) -> list[Case]:
            scans = find_new_scans()
            return project.add_cases(
                [list(scan.images) for scan in scans],
                ids=[scan.name for scan in scans],
                progress=progress,
                on_note=notes.append,
                on_skip=skipped.append,
                **options,
            )

        def on_done(added: list[Case]) -> None:
            if self._state.project is not project:  # another project was opened meanwhile
                return
            cases = "1 case" if len(added) == 1 else f"{len(added)} cases"
            self._state.message.emit("info", f"{cases} added.")
            self._state.cases_changed.emit()
            report_notes(self._state, notes)
            self._report_skipped(project, skipped)

        def on_error(error: Exception) -> None:
            if self._state.project is project:
                self._handle_error(error, retry_resampled)

        self._task_runner.submit_with_progress(
            "Adding scans",
            import_scans,
            on_done,
            on_error,
            on_cancel=lambda: self._report_cancel("No scan was added."),
        )

    def export(self, format_: str, out: Path | str, **options: Any) -> None:
        """Export results; see ``Session.export``."""
        from napari_dycon.exports.options import ExportOptions
        from napari_dycon.exports.registry import export

        project = self._state.require_project()
        self.check_export()
        chosen = ExportOptions(**options)
        self._autosaver.flush()
        notes: list[str] = []

        def write_export(progress: ItemProgressCallback) -> ExportResult:
            return export(project, format_, out, chosen, on_note=notes.append, on_progress=progress)

        def on_done(result: ExportResult) -> None:
            self.is_exporting = False
            report_notes(self._state, notes)
            self._state.message.emit("info", result.describe())
            self.exported.emit(result)

        def on_error(error: Exception) -> None:
            self.is_exporting = False
            self._state.report_error(error)

        def on_cancel() -> None:
            self.is_exporting = False
            self._report_cancel(f"Files that were already written are in {out}.")

        self.is_exporting = True
        self._task_runner.submit_with_progress(
            "Exporting", write_export, on_done, on_error, on_cancel=on_cancel
        )

    def check_export(self) -> None:
        """Refuse a second export while one is running."""
        if self.is_exporting:
            raise BusyError("An export is already running. Wait until it has finished.")

    def _report_cancel(self, consequence: str) -> None:
        self._state.message.emit("info", f"Canceled. {consequence}")

    def _report_skipped(self, project: Project, skipped: Sequence[SkippedScan]) -> None:
        """Report what was left out; offer to resample irregular slices where a window can ask."""
        irregular, findings, messages = [], [], []
        for skip in skipped:
            if self._state.can_prompt and isinstance(skip.error, IrregularSlicesError):
                irregular.append(skip)
                findings.append(f"{skip.scan.name} was left out: {skip.error.finding}")
            else:
                messages.append(skip.message)
        report_messages(self._state, "warning", messages, "more scans were left out")
        if not irregular:
            return

        def resample() -> None:
            if self._state.project is project:
                self.add_scans(
                    [skip.scan for skip in irregular],
                    resample=True,
                    labels={
                        skip.scan.name: skip.label for skip in irregular if skip.label is not None
                    },
                    value_map=irregular[0].value_map,
                )

        prefix = f"{len(irregular)} scans were left out. " if len(irregular) > 1 else ""
        self._state.prompt_requested.emit(resample_prompt(f"{prefix}{findings[0]}", resample))

    def _handle_error(self, error: Exception, retry_resampled: Callable[[], None]) -> None:
        """Offer to resample irregular slices where a window can ask; report other errors."""
        if isinstance(error, IrregularSlicesError) and self._state.can_prompt:
            self._state.prompt_requested.emit(resample_prompt(error.finding, retry_resampled))
        else:
            self._state.report_error(error)


def resample_prompt(finding: str, resample: Callable[[], object]) -> UserPrompt:
    """Create the prompt to resample irregular slices to regular spacing.

    Parameters
    ----------
    finding : description of the problem, without a full stop
    """
    return UserPrompt(
        "Irregular slices",
        f"{finding}.\n\nResample to evenly spaced slices? Labels will belong to the resampled "
        "scan, which cannot be exported as DICOM.",
        (("Resample", resample),),
    )
