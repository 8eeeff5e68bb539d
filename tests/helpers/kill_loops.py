"""Kill a process at a random moment, check its files, and start it again."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from helpers import kill_workload as work
from helpers.nifti_files import save_nifti
from helpers.tiny_runs import TINY
from napari_dycon import io
from napari_dycon.core.cleanup import TEMPORARY_NAME, clean_project
from napari_dycon.core.types import UNANNOTATED
from napari_dycon.engine.checkpoints.model_file import TrainedModel, save_weights
from napari_dycon.engine.config import make_config
from napari_dycon.engine.network import build_network
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.store import Project
from napari_dycon.session import Session

PRELOAD = ["helpers.kill_workload", "napari_dycon.exports.monai_bundle"]
MAX_LOST_S = 2.0  # of strokes
Outcome = dict[str, Any]


def make_project(folder: Path, size: int = 24, cases: int = 6) -> Project:
    """Project of noisy scans with a bright box, half of them labeled."""
    for number in range(cases):
        rng = np.random.default_rng(number)
        label = np.zeros((size, size, size - 2), np.uint8)
        corner = rng.integers(3, 8, 3)
        label[tuple(slice(c, c + 8) for c in corner)] = 1
        image = (label * 80 + rng.normal(100, 10, label.shape)).astype(np.int16)
        save_nifti(folder / "images" / f"scan-{number}.nii.gz", image)
        if number < cases // 2:
            save_nifti(folder / "labels" / f"scan-{number}.nii.gz", label)
    return create_project(folder / "project", folder / "images", folder / "labels", ["box"])


def add_run(project: Project) -> str:
    """Run with untrained weights; returns its id."""
    patch, spacing = [16, 16, 16], list(project.read_grid(project.cases[0].id).spacing_mm)
    config = make_config(
        "dycon", **(TINY | {"batch.patch_size": patch, "preprocessing.spacing": spacing})
    )
    config = config.with_changes({"preprocessing.normalization": "zscore"})
    run = project.runs.create("dycon", config.to_dict())
    networks = [build_network(config, 1, 2) for _ in range(2)]
    model = TrainedModel(networks[0], networks[1], config, (1,), 1)
    save_weights(run.weights_path, model, 1)
    return run.id


def run_and_kill(target: Callable[..., None], arguments: tuple[Any, ...], delay: float) -> float:
    """Start work in a process, let it work for ``delay`` seconds, kill it; the moment of the kill.

    The time begins with the first thing that is finished, so that starting does not use it up.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    notes: Path = arguments[1]
    before = notes.stat().st_size if notes.exists() else 0
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    end = time.monotonic() + 120
    while not (notes.exists() and notes.stat().st_size > before):
        assert process.is_alive(), f"{target.__name__} died by itself"
        assert time.monotonic() < end, f"{target.__name__} finished nothing"
        time.sleep(0.002)
    time.sleep(delay)
    assert process.is_alive(), f"{target.__name__} died by itself"
    moment = time.monotonic()
    process.kill()
    process.join()
    return moment


class Kills:
    """Kills of one kind of work after another on one project; each is checked.

    Parameters
    ----------
    folder : where everything is made; what is there already is gone on with
    """

    def __init__(self, folder: Path, seed: int = 0, size: int = 24) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        if Project.is_project(folder / "project"):
            self.project = Project.open(folder / "project")
        else:
            self.project = make_project(folder, size)
            add_run(self.project)
        self.path = self.project.path

    def paint(self, tick: float = work.TICK) -> Outcome:
        """Kill painting: no edit older than ``MAX_LOST_S`` is missing, and no label is damaged."""
        notes = self.folder / "painted"
        first = max((number for _, number, _ in work.Notes(notes).read()), default=0) + 1
        case = self.random.randrange(6)
        fresh = self.project.cases[case].id  # also the first save of a case that had no label
        self.project.labels.path(fresh).unlink(missing_ok=True)
        self.project.set_status(fresh, "unlabeled")
        since = len(work.Notes(notes).read())
        arguments = (self.path, notes, first, case, tick)
        moment = run_and_kill(work.paint, arguments, self.random.uniform(0, 4 * tick))
        session = self.reopened()
        made = work.Notes(notes).read()[since:]
        lost = 0.0
        for place in {what for what, _, _ in made}:
            id_ = self.project.cases[place].id
            label = session.require_project().labels.read(id_)
            kept = 0 if label is None else work.decode_number(label)
            missing = [t for what, number, t in made if what == place and number > kept]
            lost = max([lost, *(moment - t for t in missing)])
            if label is not None:
                assert session.require_project().get_case(id_).status != "unlabeled"
                session.show_case(id_)
                assert np.array_equal(session.require_case().label, label)
        # Between two saves lie a tick and the time that a save takes.
        assert lost <= MAX_LOST_S, f"{lost:.2f} s of strokes are lost"
        return {"lost": lost}

    def predict(self) -> Outcome:
        """Kill writing a prediction: every file is whole; those of a case belong together."""
        notes = self.folder / "predicted"
        first = max((number for _, number, _ in work.Notes(notes).read()), default=0) + 1
        run_and_kill(work.predict, (self.path, notes, first), self.random.uniform(0, 0.4))
        done = max(number for _, number, _ in work.Notes(notes).read())
        session = self.reopened()
        run, case = self.project.runs.list()[0].id, self.project.cases[0].id
        found = []
        for kind, scale in (("mask", 1), ("uncertainty", 2), ("disagreement", 4)):
            array = session.require_project().predictions.read(run, case, kind)
            found.append(work.decode_number(np.asarray(array * scale).astype(np.uint8)) // 2)
        assert set(found) <= {done, done + 1}
        assert session.require_project().predictions.read_metadata(run, case).score in (
            done,
            done + 1,
        )
        session.show_case(case)
        view = session.require_case()
        assert view.prediction is not None
        return {"mixed": len(set(found)) > 1}

    def change(self) -> Outcome:
        """Kill changes of ``project.json``: what was acknowledged is there."""
        notes = self.folder / "changed"
        first = max((number for _, number, _ in work.Notes(notes).read()), default=0) + 1
        scans = self.folder / "more"
        run_and_kill(work.change, (self.path, notes, first, scans), self.random.uniform(0, 0.4))
        made = work.Notes(notes).read()
        done = max(number for what, number, _ in made if what == 0)
        project = self.reopened().require_project()
        assert project.classes[0].name in (f"box {done}", f"box {done + 1}")
        added = {f"added-{number}" for what, number, _ in made if what == 1}
        ids = {case.id for case in project.cases}
        assert added <= ids
        begin = time.monotonic()
        project.set_split(project.cases[-1].id, "train")
        assert time.monotonic() - begin < 2.0, "a dead process's lock still holds"
        return {}

    def export(self, format_: str | None = None) -> Outcome:
        """Kill exporting: what lies there under a result's name is whole."""
        notes, out = self.folder / "exported", self.folder / "out"
        first = max((number for _, number, _ in work.Notes(notes).read()), default=0) + 1
        run_and_kill(work.send_out, (self.path, notes, first, out), self.random.uniform(0, 0.8))
        project = self.reopened().require_project()
        checked = 0
        for format_ in ("nifti", "nrrd"):
            for file in list_visible_files(out / format_):
                if file.suffix == ".csv":
                    assert file.read_bytes().endswith(b"\r\n")
                    continue
                mask = io.read_label(file).array
                label = project.labels.read(io.scan_name(file))
                if label is not None:  # predictions fill unannotated voxels
                    annotated = label != UNANNOTATED
                    assert np.array_equal(mask[annotated], label[annotated])
                checked += 1
        for folder in list_visible_files(out):
            if folder.name.startswith("nnunet-"):
                for data in list_visible_files(folder):
                    checked += check_nnunet(data, len(project.cases))
            elif folder.name.startswith("monai-bundle-"):
                checked += check_bundle(folder)
        return {"checked": checked}

    def reopened(self) -> Session:
        """The project as after a restart, with what a dead process left made old and swept."""
        session = Session()
        session.open_project(self.path)
        left = [path for path in self.path.rglob(".*.tmp.*") if TEMPORARY_NAME.match(path.name)]
        shown = [case.id for case in session.require_project().cases]
        assert not any(name.startswith(".") for name in shown)
        if self.random.random() < 0.1:
            backdate_files(left)
            clean_project(self.path)
            assert not any(path.exists() for path in left)
        return session


def backdate_files(paths: list[Path]) -> None:
    """Set the time of files and all in folders back by hours."""
    import os

    past = time.time() - 3 * 3600
    for path in paths:
        for item in (*path.rglob("*"), path) if path.is_dir() else (path,):
            with contextlib.suppress(FileNotFoundError):
                os.utime(item, (past, past))


def list_visible_files(folder: Path) -> list[Path]:
    """What a folder shows."""
    names = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in names if not path.name.startswith("."))


def check_nnunet(folder: Path, cases: int) -> int:
    """A data set that is there is there as a whole; number of files read."""
    about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    files = list_visible_files(folder / "imagesTr") + list_visible_files(folder / "imagesTs")
    assert len(files) == len(about["napari_dycon"]["cases"]) <= cases
    assert len(list_visible_files(folder / "labelsTr")) == about["numTraining"]
    for file in files:
        io.read_volume(file)
    for file in list_visible_files(folder / "labelsTr"):
        io.read_label(file)
    return len(files)


def check_bundle(folder: Path) -> int:
    """A bundle that is there is there as a whole."""
    if not list_visible_files(folder):  # the user created it empty
        return 0
    with safe_open(folder / "models" / "model.safetensors", framework="pt") as file:
        assert all(torch.isfinite(file.get_tensor(key)).all() for key in file.keys())  # noqa: SIM118
    for name in ("inference.json", "metadata.json"):
        json.loads((folder / "configs" / name).read_text(encoding="utf-8"))
    assert (folder / "docs" / "README.md").read_text(encoding="utf-8")
    assert (folder / "scripts" / "network.py").exists()
    return 1
