"""Processes killed at random moments: files stay complete, and work resumes.

``benchmarks/crash_recovery.py`` does the same three hundred times.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from helpers.kill_loops import Kills
from helpers.kill_runs import RunKills, check_exact_resume
from helpers.tiny_runs import TINY

from napari_dycon.engine.config import make_config
from napari_dycon.project.store import Project

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills are sent as signals")


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> Kills:
    return Kills(tmp_path_factory.mktemp("kills"), seed=1)


def test_repeatedly_killed_painting_loses_no_label(kills: Kills) -> None:
    for _ in range(2):
        kills.paint(tick=0.3)


@pytest.mark.parametrize("kind", ["predict", "export", "change"])
def test_repeatedly_killed_writers_leave_valid_files(kills: Kills, kind: str) -> None:
    for _ in range(3):
        getattr(kills, kind)()


def test_repeatedly_killed_training_can_be_resumed(project: Project) -> None:
    RunKills(project, seed=1, each=1).kill()


def test_resumed_runs_are_bit_identical(project: Project, tmp_path: Path) -> None:
    quick: dict[str, Any] = {
        "steps": 12,
        "atlas.max_registration_pairs": 4,
        "intervals.checkpoint_s": 0.1,
        "seed": 3,
    }
    found = check_exact_resume(project, make_config("dycon", **(TINY | quick)), kills=2)
    assert (found["weights"], found["losses"]) == (True, True)
    assert found["registrations"] > 0
