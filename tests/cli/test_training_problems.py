"""What ``train`` and ``cases`` say where nothing can be, or was, learned."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from napari_dycon.errors import UserError
from napari_dycon.project.runs.events import FinishedEvent
from napari_dycon.project.store import Project
from napari_dycon.session import Session

Run = Callable[..., tuple[int, str, str]]
TRAIN = ("--set", "batch.patch_size=[16,16,16]", "--set", "network.filters=[4,8,8]")


def test_a_run_without_a_step_fails(run: Run, project: Project) -> None:
    code, _, err = run("train", project.path, "--time-limit", "0.001s", "--device", "cpu", *TRAIN)
    assert code == 1
    assert "Nothing was learned: the time limit ended before the first training step." in err
    assert "too short to learn much" not in err
    assert "has not been trained yet. To train it, use --resume 001-dycon and more time." in err
    assert isinstance(project.runs.list()[0].read_events()[0][-1], FinishedEvent)
    # The advice works.
    code, _, err = run("train", project.path, "--resume", "001-dycon", "--steps", 1)
    assert code == 1  # the time limit still holds
    arguments = ("--resume", "001-dycon", "--steps", 1, "--time-limit", "5m")
    code, _, err = run("train", project.path, *arguments)
    assert code == 0
    assert "Finished at step 1" in err


def test_a_complete_run_is_resumed_with_a_larger_limit_only(run: Run, project: Project) -> None:
    code, _, err = run("train", project.path, "--steps", 2, "--device", "cpu", *TRAIN)
    assert code == 0
    assert "use --resume 001-dycon with larger --steps." in err
    resume = ("train", project.path, "--resume", "001-dycon")
    assert run(*resume)[0] == 0  # a script that was interrupted after the training
    for arguments in (("--steps", 2), ("--steps", 1, "--time-limit", "1h")):
        code, _, err = run(*resume, *arguments)
        assert code == 2
        assert "has taken 2 steps already" in err
        assert "Give larger --steps." in err
    code, _, err = run(*resume, "--steps", 4, "--time-limit", "0.1s")
    assert code == 2
    assert "which counts towards its time limit of" in err
    code, _, err = run(*resume, "--steps", 3)
    assert code == 0
    assert "3 labeled" in err


def test_more_steps_do_not_extend_a_time_limit(run: Run, project: Project) -> None:
    run("train", project.path, "--steps", 2, "--device", "cpu", *TRAIN)
    record = project.runs.get()
    values = {**record.read_config(), "steps": 1000, "time_limit": 3600.0}
    record.config_path.write_text(json.dumps(values))  # the time limit ended it after two steps
    resume = ("train", project.path, "--resume", "001-dycon")
    code, _, err = run(*resume, "--steps", 2000)
    assert code == 2
    assert "time limit of 1 h. Give a larger --time-limit." in err
    code, _, err = run(*resume, "--steps", 3, "--time-limit", "2h")
    assert code == 0


def test_validation_cases_alone_are_named_as_the_reason(run: Run, project: Project) -> None:
    run("cases", project.path, "--validation", "scan-0,scan-1,scan-2")
    code, _, err = run("train", project.path, "--steps", 1)
    assert code == 2
    assert "All labeled cases (scan-0, scan-1, scan-2) are used for validation only" in err
    assert "napari-dycon cases PROJECT --training scan-0" in err
    assert not project.runs.list()
    session = Session()
    session.open_project(project.path)
    with pytest.raises(UserError, match=r"All labeled cases \(scan-0, scan-1, scan-2\)"):
        session.start_training()
    session.close_project()


def test_cases_say_which_are_validated(run: Run, project: Project) -> None:
    run("cases", project.path, "--validation", "scan-0")
    _, _, err = run("cases", project.path, "--validation", "scan-2")
    assert "Validation cases are now: scan-0, scan-2." in err
    _, _, err = run("cases", project.path, "--training", "scan-0")
    assert "Validation cases are now: scan-2." in err
    _, _, err = run("cases", project.path, "--training", "scan-2")
    assert "No validation cases." in err
    assert "alidation" not in run("cases", project.path)[2]
