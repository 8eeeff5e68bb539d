"""Many scans predicted by a command, one by one: one that cannot be does not stop the others.

What concerns them all, such as a disk that is full, ends the work at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from napari_dycon.engine.device import is_out_of_memory
from napari_dycon.engine.predict import check_files, predict_cases, predict_files
from napari_dycon.errors import DyconError, EngineError, UserError
from napari_dycon.project.adding import is_of_one_scan
from napari_dycon.project.atomic import make_folder
from napari_dycon.project.scans import Scan
from napari_dycon.project.store import Project

if TYPE_CHECKING:
    import torch

    from napari_dycon.engine.checkpoint import Model

Event = dict[str, Any]
Note = Callable[[str], None]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Missed:
    """A scan that could not be predicted, and why."""

    name: str
    error: DyconError

    def to_event(self) -> Event:
        """Return what a program is told."""
        return {"event": "skipped", "case": self.name, "reason": str(self.error)}


def predict_each_case(
    project: Project,
    run_id: str,
    model: Model,
    cases: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
    *,
    missed: list[Missed],
    note: Note,
) -> Iterator[Event]:
    """Predict cases as ``predict_cases`` does; those that cannot be are added to ``missed``.

    Raises
    ------
    DyconError
        No case could be predicted; what was wrong with the first.
    """

    def predict(case: str) -> Event:
        return next(predict_cases(project, run_id, model, [case], device, dtype))

    for number, event in one_by_one([(case, case) for case in cases], predict, missed):
        yield {**event, "done": number, "total": len(cases)}
    try:  # what else it writes down once all are done
        for _ in predict_cases(project, run_id, model, [], device, dtype):
            pass
    except UserError as error:
        if not is_of_one_scan(error):
            raise
        note(f"A labelled scan cannot be compared to the others: {error}")


def predict_each_file(
    scans: Sequence[Scan],
    out: Path,
    model: Model,
    device: torch.device,
    dtype: torch.dtype,
    *,
    resample: bool,
    missed: list[Missed],
    note: Note,
) -> Iterator[Event]:
    """Predict scans as ``predict_files`` does; those that cannot be are added to ``missed``.

    All are read once before, so that nothing is written when none can be predicted.

    Raises
    ------
    DyconError
        No scan could be predicted; what was wrong with the first.
    """

    def check(scan: Scan) -> Scan:
        check_files([scan], model, resample=resample, note=note)
        return scan

    def predict(scan: Scan) -> Event:
        return next(predict_files([scan], out, model, device, dtype, resample=resample))

    sound = [scan for _, scan in one_by_one([(scan.name, scan) for scan in scans], check, missed)]
    make_folder(out)
    for number, event in one_by_one([(scan.name, scan) for scan in sound], predict, missed):
        yield {**event, "done": number, "total": len(sound)}


def summed_up(missed: Sequence[Missed], total: int) -> DyconError:
    """Sum up what was missed of so many scans: an error of the user only if all of them are."""
    first = missed[0]
    kind = UserError if all(isinstance(one.error, UserError) for one in missed) else EngineError
    return kind(
        f"{len(missed)} of {total} scans could not be predicted; the others are. "
        f"{first.name}: {first.error}"
    )


def one_by_one(
    items: Sequence[tuple[str, T]], work: Callable[[T], R], missed: list[Missed]
) -> Iterator[tuple[int, R]]:
    """Do work for each named item, and yield its number from 1 and what came of it."""
    done = False
    for number, (name, item) in enumerate(items, start=1):
        try:
            result = work(item)
        except UserError as error:
            if not is_of_one_scan(error):
                raise
            missed.append(Missed(name, error))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            advice = "Close other programs, choose --device cpu, or crop the scan."
            missed.append(
                Missed(name, EngineError(f"{name} is too large for the memory there is. {advice}"))
            )
        else:
            done = True
            yield number, result
    if items and not done:
        raise missed[0].error
