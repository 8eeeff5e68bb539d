"""Training runs that are killed and resumed through the command line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open

from helpers.kill_loops import Outcome
from helpers.tiny_runs import TINY
from napari_dycon.application import engine_process
from napari_dycon.engine.checkpoints.model_file import load_model
from napari_dycon.engine.checkpoints.training_state import read_training_progress
from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.project.runs.run import Run
from napari_dycon.project.store import Project
from napari_dycon.session import Session

# As the command, but with an event for every step, so that curves can be compared.
EVERY_STEP = (
    "import napari_dycon.engine.training.step_events as t; t.STEP_EVENT_INTERVAL_S = 0.0; "
    "from napari_dycon.cli.app import main; main()"
)
PATIENCE = 300.0  # seconds for one event


@contextlib.contextmanager
def start_engine(project: Project, run: Run, *, every_step: bool = False) -> Iterator[Any]:
    """The engine at work on a run, in a process; killed at the end if it still is."""
    begin = ["-c", EVERY_STEP] if every_step else ["-m", "napari_dycon"]
    with (run.folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *begin, "train", str(project.path), "--resume", run.id, "--json"],
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def assert_run_ends(project: Project, run: Run) -> None:
    """Let a run work to its end."""
    with start_engine(project, run, every_step=True) as process:
        assert process.wait() == 0, run.read_events()[0][-1:]


def wait_for(run: Run, process: Any, offset: int, *kinds: str, count: int = 1) -> None:
    """Wait until events of these kinds were written after ``offset``, or the process has ended."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None:
        events, _ = run.read_events(offset)
        if sum(event.event in kinds for event in events) >= count:
            return
        assert time.monotonic() < end, f"no event {kinds} came"
        time.sleep(0.005)


def get_size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


class RunKills:
    """Kills of one run after another, each run killed ``each`` times and then gone on with."""

    def __init__(self, project: Project, seed: int = 0, each: int = 5) -> None:
        self.project, self.each = project, each
        self.random = random.Random(seed)
        self.kills = 0
        self.run: Run | None = None
        project.set_split(project.cases[2].id, "validation")

    def kill(self) -> Outcome:
        """Start or go on with a run, kill it at a moment of chance, look at what is left."""
        if self.run is None or self.kills % self.each == 0:
            many: dict[str, Any] = {
                "steps": 10**6,
                "intervals.checkpoint_s": 0.3,
                "atlas.max_registration_pairs": 6,
            }
            config = make_config("dycon", **(TINY | many | {"intervals.validation_s": 1.0}))
            self.run = self.project.runs.create("dycon", config.to_dict())
            self.run.write_control(command="run", preview=self.project.cases[4].id)
        self.kills += 1
        run = self.run
        begin = get_size(run.events_path)
        with start_engine(self.project, run) as process:
            phase = self.random.choice(("", "started", "step", "step", "checkpoint"))
            if phase:  # otherwise while it starts
                wait_for(run, process, begin, phase)
            time.sleep(self.random.uniform(0, 2))
            assert process.poll() is None, (run.folder / "log.txt").read_text(encoding="utf-8")
        step = self.look(run)
        if self.kills % self.each == 0:
            self.go_on(run, step)
        return {"step": step}

    def look(self, run: Run) -> int:
        """Check what a killed run left; returns the step of its checkpoint."""
        session = Session()
        session.open_project(self.project.path)
        assert session.status.phase == "idle"
        assert not engine_process.is_running(run), "a dead process counts as alive"
        state = run.state_folder / "state.safetensors"
        step = read_training_progress(state).step if state.exists() else 0
        events = run.read_events()[0]
        saved = [event.step for event in events if event.event == "checkpoint"]
        assert max(saved, default=0) <= step
        if state.exists() or run.has_weights:
            load_model(run.weights_path)
        check_curve(run)
        session.show_case(self.project.cases[4].id)
        session.close_project()
        return step

    def go_on(self, run: Run, step: int) -> None:
        """Resume a run, let it work and stop it; it goes on from its checkpoint."""
        begin = get_size(run.events_path)
        with start_engine(self.project, run) as process:
            wait_for(run, process, begin, "checkpoint")
            run.write_control(command="stop")
            process.wait(PATIENCE)
        events = run.read_events(begin)[0]
        assert process.returncode == 0, events[-1:]
        assert events[0].event == "started", events[0]
        assert events[0].resumed_from_step == step
        assert events[-1].event == "stopped"
        assert events[-1].step > step
        check_curve(run)


def check_curve(run: Run) -> None:
    """No step of the curve comes twice, also where it was made twice."""
    steps = [event.step for event in run.read_history() if event.event == "step"]
    assert steps == sorted(set(steps)), steps


def compute_digests(run: Run) -> dict[str, str]:
    """Hash of every tensor of a run's student and teacher, and of the whole file without header."""
    with safe_open(run.weights_path, framework="np") as file:
        return {
            key: hashlib.sha256(file.get_tensor(key).tobytes()).hexdigest()
            for key in file.keys()  # noqa: SIM118
        }


def read_losses(run: Run) -> dict[int, float]:
    """Loss by step, as it counts in the end."""
    return {e.step: e.loss for e in run.read_history() if e.event == "step"}


def check_exact_resume(project: Project, config: TrainConfig, kills: int, seed: int = 0) -> Outcome:
    """Train at a stretch, and again with kills and resumes; compares weights and losses.

    Returns
    -------
    steps, kills, how many steps were made twice, and whether anything differed.
    """
    whole = project.runs.create(config.method, config.to_dict())
    assert_run_ends(project, whole)
    parts = project.runs.create(config.method, config.to_dict())
    rng = random.Random(seed)
    # Each between the same number of steps from the last one's end; the first also while preparing.
    share = config.steps / (kills + 1)
    for number in range(kills):
        begin = get_size(parts.events_path)
        target = share * (number + rng.random())
        with start_engine(project, parts, every_step=True) as process:
            while process.poll() is None:
                new = parts.read_events(begin)[0]
                if any(e.event == "step" and e.step >= target for e in new):
                    break
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.1))  # also in the middle of a checkpoint
            assert process.poll() is None, "the run ended before it was killed"
    assert_run_ends(project, parts)
    made = [event.step for event in parts.read_events()[0] if event.event == "step"]
    check_curve(parts)
    one, two = read_losses(whole), read_losses(parts)
    assert list(one) == list(range(1, config.steps + 1))
    return {
        "steps": config.steps,
        "kills": kills,
        "again": len(made) - len(two),
        "tensors": len(compute_digests(whole)),
        "weights": compute_digests(whole) == compute_digests(parts),
        "losses": one == two,
        "registrations": sum(event.event == "registration" for event in whole.read_events()[0]),
        "about": json.dumps(
            {"batch.patch_size": config.batch.patch_size, "network.filters": config.network.filters}
        ),
    }
