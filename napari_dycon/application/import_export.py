"""Scans into a project, and its work out of it: what the session does beside the person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dycon.application.prompts import Question
from napari_dycon.errors import BusyError, UnevenSlicesError
from napari_dycon.project.importing.case_import import OnProgress, SkippedScan
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.importing.discovery import Scan
from napari_dycon.project.importing.patient_folders import resolve_scans
from napari_dycon.project.models import Case
from napari_dycon.project.store import Project

if TYPE_CHECKING:
    from napari_dycon.session import Session

MOST_TOLD = 3  # one by one
MOST_EXAMPLES = 20


class Transfers:
    """What the session does with scans that come and files that go.

    Attributes
    ----------
    exporting : whether an export is at work; there is one at a time
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.exporting = False

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
        """Make a project and open it; see ``Session.create_project``."""
        notes: list[str] = []
        skipped: list[SkippedScan] = []

        def work(progress: OnProgress) -> Project:
            return create_project(
                path, images, labels, classes, progress, channels=channels, resample=resample,
                on_note=notes.append, on_skip=skipped.append, scans=scans,
            )  # fmt: skip

        def done(project: Project) -> None:
            self._session.opened(project)
            self.tell_notes(notes)
            self._tell_skipped(project, skipped)

        def again() -> None:
            self.create(path, images, labels, classes, channels, scans=scans, resample=True)

        self._session.background.watch(
            "Making the project", work, done, lambda error: self._failed(error, again)
        )

    def add_paths(self, paths: Sequence[Path | str], *, resample: bool) -> None:
        """Add what lies in files and folders; see ``Session.add_cases``."""
        project = self._session.need_project()
        examples = self.examples()
        skipped: list[SkippedScan] = []

        def find() -> list[Scan]:
            return resolve_scans(
                [Path(path) for path in paths],
                project.channels,
                examples=examples,
                on_skip=skipped.append,
            )

        def again() -> None:
            self.add_paths(paths, resample=True)

        self._add(project, find, skipped, again, resample=resample)

    def examples(self) -> list[list[Path]]:
        """Files of some cases, a channel each, to tell by them what files of a channel are like."""
        project = self._session.need_project()
        return [project.image_paths(case.id) for case in project.cases[:MOST_EXAMPLES]]

    def add_scans(
        self,
        scans: Sequence[Scan],
        *,
        resample: bool = False,
        labels: Mapping[str, Path] | None = None,
        renamed: Mapping[int, int] | None = None,
    ) -> None:
        """Add scans whose channels are known; see ``Session.add_scans``."""
        how = {"labels": labels, "value_map": renamed}

        def again() -> None:
            self.add_scans(scans, resample=True, labels=labels, renamed=renamed)

        self._add(self._session.need_project(), lambda: scans, [], again, resample=resample, **how)

    def _add(
        self,
        project: Project,
        find: Callable[[], Sequence[Scan]],
        skipped: list[SkippedScan],
        again: Callable[[], None],
        **how: Any,
    ) -> None:
        notes: list[str] = []

        def work(progress: OnProgress) -> list[Case]:
            scans = find()
            return project.add_cases(
                [list(scan.images) for scan in scans],
                ids=[scan.name for scan in scans],
                progress=progress,
                on_note=notes.append,
                on_skip=skipped.append,
                **how,
            )

        def done(added: list[Case]) -> None:
            if self._session.project is not project:  # another one was opened meanwhile
                return
            self._session.message.emit("info", f"{len(added)} case(s) added.")
            self._session.cases_changed.emit()
            self.tell_notes(notes)
            self._tell_skipped(project, skipped)

        def failed(error: Exception) -> None:
            if self._session.project is project:
                self._failed(error, again)

        self._session.background.watch("Adding scans", work, done, failed)

    def export(self, format_: str, out: Path | str, **options: Any) -> None:
        """Write what others can use; see ``Session.export``."""
        from napari_dycon.exports.registry import export

        session = self._session
        project = session.need_project()
        self.check_export()
        session.flush()
        notes: list[str] = []

        def work(progress: OnProgress) -> list[Path]:
            return export(project, format_, out, note=notes.append, progress=progress, **options)

        def done(written: list[Path]) -> None:
            self.exporting = False
            self.tell_notes(notes)
            names = written[0].name if len(written) == 1 else f"{len(written)} files"
            session.message.emit("info", f"Exported: {names} in {out}.")

        def failed(error: Exception) -> None:
            self.exporting = False
            session.tell(error)

        self.exporting = True
        session.background.watch("Exporting", work, done, failed)

    def check_export(self) -> None:
        """Refuse a second export while one is at work."""
        if self.exporting:
            raise BusyError("An export is at work already; wait until it is done.")

    def tell_notes(self, notes: Sequence[str]) -> None:
        """Tell the first of many notes, and how many there are."""
        self._tell("info", notes, "more notes like these")

    def _tell_skipped(self, project: Project, skipped: Sequence[SkippedScan]) -> None:
        """Tell what was left out; of uneven slices ask, where somebody is there to be asked."""
        asked = len(self._session.asked) > 0
        uneven = [one for one in skipped if asked and isinstance(one.error, UnevenSlicesError)]
        rest = [one.message for one in skipped if one not in uneven]
        self._tell("warning", rest, "more scans were left out")
        if not uneven:
            return

        def resample() -> None:
            if self._session.project is project:
                self.add_scans(
                    [one.scan for one in uneven],
                    resample=True,
                    labels={one.scan.name: one.label for one in uneven if one.label is not None},
                    renamed=uneven[0].value_map,
                )

        more = f"{len(uneven)} scans were left out. " if len(uneven) > 1 else ""
        self._session.asked.emit(uneven_slices(f"{more}{uneven[0].message}", resample))

    def _tell(self, level: str, texts: Sequence[str], more: str) -> None:
        for text in texts[:MOST_TOLD]:
            self._session.message.emit(level, text)
        if len(texts) > MOST_TOLD:
            self._session.message.emit(level, f"{len(texts) - MOST_TOLD} {more}.")

    def _failed(self, error: Exception, again: Callable[[], None]) -> None:
        """Let a person decide about uneven slices where one is there to be asked."""
        if isinstance(error, UnevenSlicesError) and len(self._session.asked):
            self._session.asked.emit(uneven_slices(str(error), again))
        else:
            self._session.tell(error)


def uneven_slices(why: str, resample: Callable[[], object]) -> Question:
    """Ask whether slices that are no even grid shall be interpolated to one."""
    return Question(
        "Uneven slices",
        f"{why.split(' Have them resampled')[0]}\n\nShall they be resampled to even ones? Labels "
        "then lie on the resampled scan.",
        (("Resample", resample),),
    )
