"""What a run borrows from unlabelled scans before it starts: deformed labelled scans, and votes.

Both are extras: where they cannot be made, the run goes on without them. Their files are large and
removed when the run ends; how many there were is kept, so that a resumed run learns from the same.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from napari_dycon.engine.dataset import TrainingData
from napari_dycon.engine.events import Event
from napari_dycon.engine.votes import VOTERS, can_vote, vote, voters_of
from napari_dycon.engine.warps import make_warps, plan_warps
from napari_dycon.errors import ProjectError
from napari_dycon.project.atomic import make_folder, write_json
from napari_dycon.project.limited import read_json, whole


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
    resumed : whether the run has learnt from them already; it gets the same again
    enough : asked after each pair; a run goes on with what was made until then
    """
    voting = data.config.vote_share > 0 and can_vote(data.labelled)
    voters = min(VOTERS, len(data.labelled)) if voting else 1
    config = data.config
    if not voting:  # each pair costs time, and shapes alone are seen the less the more is labelled
        share = min(1.0, config.shape_share(len(data.labelled)))
        config = config.with_changes(warps=math.ceil(config.warps * share))
    pairs = plan_warps(data.labelled, data.unlabelled, config, folder, voters)
    ballots = {pairs.index(group[-1]): group for group in voters_of(pairs)} if voting else {}
    record = folder.with_suffix(".json")
    wanted = _read(record) if resumed else None
    data.warped, data.voted = [], []

    def take(number: int) -> None:
        data.warped.append(pairs[number].warped)
        if number in ballots:  # the last voter of a scan is there
            case = vote(ballots[number], folder / f"{number:04d}.voted.npy")
            data.voted += [case] if case else []

    try:
        if wanted is not None and all(pair.exists() for pair in pairs[:wanted]):
            for number in range(wanted):
                take(number)
            return
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder, within=folder.parent)
        for event in make_warps(pairs, device) if wanted != 0 else ():
            take(len(data.warped))
            yield event
            if len(data.warped) == wanted or enough():
                break
        if wanted is None:
            write_json(record, {"made": len(data.warped)})
    except (ProjectError, OSError) as error:  # a full disk, for instance
        yield {
            "event": "warning",
            "message": f"Not all shapes of unlabelled scans could be borrowed: {error}",
        }


def _read(record: Path) -> int | None:
    """How many pairs a run made when it began; ``None`` where that is not known."""
    try:
        return whole(read_json(record)["made"], 0, 10**6)
    except (OSError, ValueError, KeyError, TypeError):
        return None
