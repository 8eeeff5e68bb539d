"""Counts of cases are the same in the window, in the list of cases and at the start of a run."""

from __future__ import annotations

from collections.abc import Callable

from helpers.tiny_runs import TINY

from napari_dycon.project.case_counts import CaseCounts, count_cases
from napari_dycon.project.models import Status
from napari_dycon.project.store import Project


def prepare(project: Project) -> str:
    """Use one labeled case for validation, and mark another as in progress."""
    project.set_split("scan-1", "validation")
    project.set_status("scan-2", Status.IN_PROGRESS)
    return "1 labeled for training, 1 for validation, 1 in progress, 3 unlabeled"


def test_every_case_is_counted_once(project: Project) -> None:
    assert count_cases(project.cases).describe() == "3 labeled, 3 unlabeled"
    text = prepare(project)
    counts = count_cases(project.cases)
    assert counts == CaseCounts(labeled=1, validation=1, in_progress=1, unlabeled=3)
    assert counts.describe() == text
    assert counts.total == len(project.cases)
    project.set_split("scan-4", "validation")  # without a label it is of no use there
    project.set_status("scan-0", Status.REVIEWED)
    assert count_cases(project.cases) == counts
    assert CaseCounts().describe() == "0 labeled"


def test_the_commands_use_the_same_words(
    project: Project, run: Callable[..., tuple[int, str, str]]
) -> None:
    text = prepare(project)
    code, out, _ = run("cases", project.path)
    assert (code, text in " ".join(out.split())) == (0, True)
    code, out, _ = run("cases", project.path, "--json")
    assert '"counts": {"labeled": 1, "validation": 1, "in_progress": 1, "unlabeled": 3}' in out
    options = ["--steps", 1, "--device", "cpu", "--method", "supervised"]
    settings = [
        f"--set={name}={value}" for name, value in TINY.items() if name not in {"steps", "device"}
    ]
    code, _, err = run("train", project.path, *options, *settings)
    assert (code, text in " ".join(err.split())) == (0, True), err
