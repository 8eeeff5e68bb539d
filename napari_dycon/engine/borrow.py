"""What a run borrows from unlabelled scans before it starts: deformed labelled scans, and votes.

Both are extras: where they cannot be made, the run goes on without them. Files live in the run's
state folder while it lasts; which of them were made is written down when all are, so that a resumed
run goes on with the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from napari_dycon.engine.dataset import TrainingData
from napari_dycon.engine.events import Event
from napari_dycon.engine.votes import VOTERS, can_vote, vote
from napari_dycon.engine.warps import make_warps, plan_warps
from napari_dycon.errors import ProjectError
from napari_dycon.project.atomic import make_folder, write_json

MADE = "made.json"


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
    resumed : whether the run has learnt from what is there already
    enough : asked after each pair; a run goes on with what was made until then
    """
    voting = data.config.vote_share > 0 and can_vote(data.labelled)
    voters = min(VOTERS, len(data.labelled)) if voting else 1
    pairs = plan_warps(data.labelled, data.unlabelled, data.config, folder, voters)
    made = _read(folder) if resumed else None
    if made is None:
        made = 0
        shutil.rmtree(folder, ignore_errors=True)
        try:
            make_folder(folder)
            for event in make_warps(pairs, device):
                made = int(event["done"])
                yield event
                if enough():
                    break
            write_json(folder / MADE, {"made": made})
        except (ProjectError, OSError) as error:  # a full disk, for instance
            yield {
                "event": "warning",
                "message": f"Not all shapes of unlabelled scans could be borrowed: {error}",
            }
    data.warped = [pair.warped for pair in pairs[:made]]
    data.voted = vote(pairs[:made], folder) if voting else []


def _read(folder: Path) -> int | None:
    """How many pairs a run made when it began; ``None`` where they are gone."""
    try:
        return int(json.loads((folder / MADE).read_text(encoding="utf-8"))["made"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
