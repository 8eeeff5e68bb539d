"""What a run borrows from unlabeled scans before it starts: deformed labeled scans, and votes.

Both are extras: where they cannot be made, the run goes on without them. Their files are large and
removed when the run ends; which there were is kept, so that a resumed run learns from the same.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from napari_dycon.core.atomic import make_folder, write_json
from napari_dycon.core.untrusted import read_json, whole
from napari_dycon.engine.atlas.pseudo_labels import VOTERS, Vote, can_vote, surest, vote, voters_of
from napari_dycon.engine.atlas.registered_cases import Pair, make_warps, plan_warps
from napari_dycon.engine.data.patches import LabeledCase
from napari_dycon.engine.data.preparation import TrainingData, has_structure
from napari_dycon.engine.data.preprocessing import read_image_array, read_label_array
from napari_dycon.engine.device import is_out_of_memory
from napari_dycon.engine.losses.segmentation import UNANNOTATED
from napari_dycon.errors import DyconError, ProjectError
from napari_dycon.project.runs.events import Event

MOST = 10**6  # pairs that a record may speak of


@dataclass(frozen=True)
class Borrowed:
    """How many pairs a run made, and after which of them (from 0) a vote was taken and used."""

    made: int
    voted: list[int]


def borrow(
    data: TrainingData,
    folder: Path,
    device: torch.device,
    *,
    resumed: bool,
    enough: Callable[[], bool],
) -> Iterator[Event]:
    """Fill ``data.warped`` and ``data.voted``; yields events.

    Parameters
    ----------
    folder : where files are written
    resumed : whether the run has learned from them already; it gets the same again
    enough : asked after each pair and within votes; a run goes on with what was made until then
    """
    labeled = [case for case in data.labeled if has_structure(case)]  # others lend nothing
    voting = data.config.vote_share > 0 and can_vote(labeled)
    voters = min(VOTERS, len(labeled)) if voting else 1
    config = data.config
    if not voting:  # each pair costs time, and shapes alone are seen the less the more is labeled
        share = min(1.0, config.shape_share(len(labeled)))
        config = config.with_changes(warps=math.ceil(config.warps * share))
    pairs = plan_warps(labeled, data.unlabeled, config, folder, voters)
    ballots = {pairs.index(g[-1]): g for g in voters_of(pairs, voters)} if voting else {}
    record = folder.with_suffix(".json")
    wanted = _read(record) if resumed else None
    if wanted and _take_again(wanted, data, pairs, ballots, folder):
        return
    votes: dict[int, Vote] = {}
    data.warped, data.voted = [], []

    def take(number: int) -> None:
        data.warped.append(pairs[number].warped)
        if number not in ballots or (wanted and number not in wanted.voted):
            return
        try:
            found = vote(ballots[number], _path(folder, number), enough, device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            found = None
        if found:
            votes[number] = found

    try:
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder, within=folder.parent)
        for event in make_warps(pairs, device) if not wanted or wanted.made else ():
            take(len(data.warped))
            yield event
            if (wanted and len(data.warped) == wanted.made) or enough():
                break
    except (ProjectError, OSError, RuntimeError, MemoryError) as error:  # a full disk, for instance
        if not isinstance(error, (ProjectError, OSError)) and not is_out_of_memory(error):
            raise
        why = "memory ran out." if is_out_of_memory(error) else str(error)
        yield {
            "event": "warning",
            "message": f"Not all shapes of unlabeled scans could be borrowed: {why}",
        }
    voted = surest(votes) if voters > 1 and not wanted else sorted(votes)
    data.voted = [votes[number].case for number in voted]
    if not wanted:
        with contextlib.suppress(ProjectError, OSError):
            write_json(record, asdict(Borrowed(len(data.warped), voted)))


def _take_again(
    wanted: Borrowed,
    data: TrainingData,
    pairs: list[Pair],
    ballots: dict[int, list[Pair]],
    folder: Path,
) -> bool:
    """Fill ``data`` from files that lie there already; false where one is missing or unfit."""
    if wanted.made > len(pairs) or not set(wanted.voted) <= set(ballots):
        return False
    warped = [pair.warped for pair in pairs[: wanted.made]]
    scans = [(number, ballots[number][0].unlabeled) for number in wanted.voted]
    voted = [LabeledCase(f"{s.id}-voted", s.image, _path(folder, number)) for number, s in scans]
    if not all(_fits(case, len(data.class_values)) for case in (*warped, *voted)):
        return False
    data.warped, data.voted = warped, voted
    return True


def _fits(case: LabeledCase, classes: int) -> bool:
    """Whether scan and label of a case can be read and learned from."""
    try:
        label = read_label_array(case.label, mapped=False)
        shape = read_image_array(case.image).shape[1:]
    except (DyconError, OSError, ValueError):
        return False
    return label.shape == shape and label[label != UNANNOTATED].max(initial=0) <= classes


def _path(folder: Path, number: int) -> Path:
    """Where the vote of the scan whose last voter has this number lies."""
    return folder / f"{number:04d}.voted.npy"


def _read(record: Path) -> Borrowed | None:
    """What a run made when it began; ``None`` where that is not known."""
    try:
        found = read_json(record)
        made, numbers = whole(found["made"], 0, MOST), found["voted"]
        if made is None or not isinstance(numbers, list):
            return None
        return Borrowed(made, [n for n in numbers if whole(n, 0, made - 1) is not None])
    except (OSError, ValueError, KeyError, TypeError):
        return None
