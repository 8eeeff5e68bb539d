"""The loop on tiny scans: honest, resumable, stoppable; predictions on the scan's own grid."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers.generators import get_result
from helpers.nifti_files import save_nifti
from helpers.tiny_runs import TINY
from safetensors.torch import load_file

from napari_dycon import io
from napari_dycon.engine.checkpoints.model_file import load_model
from napari_dycon.engine.config import (
    METHODS,
    TrainConfig,
    make_config,
    parse_overrides,
)
from napari_dycon.engine.data import preparation
from napari_dycon.engine.data.cases import LabeledCase, UnlabeledCase
from napari_dycon.engine.data.patches import PatchBatchDataset, UnlabeledBatch
from napari_dycon.engine.data.preparation import prepare_training_data
from napari_dycon.engine.data.preprocessing import prepare_image
from napari_dycon.engine.data.splits import split_cases
from napari_dycon.engine.device import choose_device
from napari_dycon.engine.inference.predict import predict_members
from napari_dycon.engine.inference.predict_scans import predict_cases
from napari_dycon.engine.methods.base import StepInputs
from napari_dycon.engine.methods.supervised import Supervised
from napari_dycon.engine.presets import list_presets
from napari_dycon.engine.training.run import train
from napari_dycon.errors import ConfigError, DyconError, EngineError, UserError
from napari_dycon.project.importing.create_project import create_project
from napari_dycon.project.models import classes_from_names
from napari_dycon.project.store import Project


def tiny(method: str = "dycon", **changes: Any) -> TrainConfig:
    return make_config(method, **(TINY | changes))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_emits_events(project: Project, method: str) -> None:
    events = list(train(project, tiny(method)))
    assert events[0]["event"] == "started"
    assert events[0]["unlabeled"] == (0 if method == "supervised" else 3)
    assert [e["step"] for e in events if e["event"] == "finished"] == [4]
    run = project.runs.get()
    assert run.id == events[0]["run"]
    assert [e["event"] for e in run.read_events()[0]] == [e["event"] for e in events]
    for line in run.events_path.read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_prediction_lies_on_the_scans_own_grid(project: Project) -> None:
    list(train(project, tiny()))
    run = project.runs.get()
    device = choose_device("cpu").device
    model = load_model(run.weights_path, device)
    events = list(predict_cases(project, run.id, model, ["scan-4"], device, torch.float32))
    assert [e["case"] for e in events] == ["scan-4"]
    scan = nib.load(project.image_paths("scan-4")[0])
    for kind in ("mask", "uncertainty", "disagreement"):
        found = nib.load(project.predictions.path(run.id, "scan-4", kind))
        assert found.shape == scan.shape
        assert np.array_equal(found.affine, scan.affine)
        assert np.asarray(found.dataobj).max() <= 1


def test_a_mirrored_view_is_turned_back(project: Project) -> None:
    list(
        train(
            project,
            tiny(
                "supervised",
                **{"inference.tta_scales": [1.0, 1.0], "inference.tta_flip_left_right": True},
            ),
        )
    )
    model = load_model(project.runs.get().weights_path)
    volume = project.read_image("scan-4")
    turned = dataclasses.replace(volume, array=volume.array[..., ::-1].copy())
    one, other_way = (prepare_image(scan, model.config) for scan in (volume, turned))
    how = volume.shape, torch.device("cpu"), torch.float32
    student, _, *mirrored = predict_members(model, one, *how, fast=False)
    other = list(predict_members(model, other_way, *how, fast=False))[:2]
    assert len(mirrored) == 2
    for back, seen in zip(mirrored, other, strict=True):
        torch.testing.assert_close(back, seen.flip(-1))
    assert not torch.allclose(mirrored[0], student)
    assert len(list(predict_members(model, one, *how, fast=True))) == 2


def test_labels_of_unlabeled_cases_are_never_read(project: Project) -> None:
    """Poison on the disk where a label of an unlabeled case could be found."""
    (project.path / "labels" / "scan-5.nii.gz").write_bytes(b"no label at all")
    assert "scan-5" in [case.id for case in project.unlabeled_cases()]
    events = list(train(project, tiny()))
    assert events[-1]["event"] == "finished"


@pytest.mark.parametrize("method", [m for m in METHODS if m != "supervised"])
def test_no_label_of_an_unlabeled_case_is_even_opened(project: Project, method: str) -> None:
    """Every file that Python opens is noted by an audit hook."""
    truth = np.zeros(project.read_image("scan-5").shape, np.uint8)
    io.write_mask(
        truth,
        reference=project.read_image("scan-5"),
        path=project.path / "labels" / "scan-5.nii.gz",
    )
    opened: list[str] = []
    watching = [True]

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and watching[0]:
            opened.append(str(arguments[0]))

    sys.addaudithook(note)  # cannot be taken out again, only silenced
    try:
        changes = {"atlas.max_registration_pairs": 9} if method == "dycon" else {}
        events = list(train(project, tiny(method, **changes)))
    finally:
        watching[0] = False
    assert events[-1]["event"] == "finished"
    assert any("scan-5" in name for name in opened)  # its image was learned from
    labels = [name for name in opened if "labels" in Path(name).parts]
    assert any("scan-0" in name for name in labels)
    assert not any("scan-5" in name for name in labels)


def test_an_unlabeled_batch_has_no_label() -> None:
    assert UnlabeledBatch._fields == ("image", "patch_center", "patch_size")
    assert set(UnlabeledCase.__dataclass_fields__) == {"id", "image"}


@pytest.mark.parametrize(
    "changes", [{}, {"atlas.max_registration_pairs": 9, "semi_supervised.start": 0.3}]
)
def test_killed_and_resumed_runs_are_bit_identical(
    project: Project, changes: dict[str, Any]
) -> None:
    list(train(project, tiny(steps=6, **changes)))
    whole = load_file(project.runs.get().weights_path)
    interrupted = train(project, tiny(steps=6, **{"intervals.checkpoint_s": 0.0}, **changes))
    for event in interrupted:
        if event["event"] == "checkpoint" and event["step"] == 3:
            interrupted.close()  # type: ignore[attr-defined]
            break
    run = project.runs.list()[-1]
    list(train(project, TrainConfig.from_dict(run.read_config()), run))
    resumed = load_file(run.weights_path)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_stop_keeps_the_weights(project: Project) -> None:
    run = project.runs.create("dycon", tiny(steps=10_000).to_dict())
    events = []
    for event in train(project, tiny(steps=10_000), run):
        events.append(event)
        if event["event"] == "step":
            run.write_control(command="stop")
    assert events[-1]["event"] == "stopped"
    assert run.has_weights


def test_training_learns_and_starts_again_from_its_weights(project: Project) -> None:
    for case in ("scan-2",):
        project.set_split(case, "validation")
    config = tiny(
        "supervised",
        steps=60,
        **{
            "optimizer.learning_rate": 0.02,
            "batch.labeled_size": 2,
            "network.filters": [8, 16, 16],
        },
        seed=1,
    )
    first = list(train(project, config))
    dice = [e["mean"] for e in first if e["event"] == "validation"][-1]
    assert dice > 0.6
    (temperature,) = [e["temperature"] for e in first if e["event"] == "calibrated"]
    assert load_model(project.runs.get().weights_path).temperature == temperature != 1.0
    again = list(train(project, config.with_changes(steps=1, init_from=project.runs.get().id)))
    assert not [e for e in again if e["event"] == "warning"]
    assert [e["mean"] for e in again if e["event"] == "validation"][-1] > 0.5


def test_missing_labels_are_reported_before_a_run_is_created(scans: Path, tmp_path: Path) -> None:
    bare = create_project(tmp_path / "bare", scans / "images")
    with pytest.raises(UserError, match="No case is labeled yet"):
        list(train(bare, tiny()))
    assert bare.runs.list() == []


@pytest.mark.parametrize("method", METHODS)
def test_patches_of_any_size_train(project: Project, method: str) -> None:
    events = list(train(project, tiny(method, **{"batch.patch_size": [3, 17, 12]}, steps=2)))
    assert events[-1]["event"] == "finished"
    assert all(np.isfinite(e["loss"]) for e in events if e["event"] == "step")


def test_missing_unlabeled_cases_are_reported(scans: Path, tmp_path: Path) -> None:
    for scan in (scans / "images").iterdir():
        if not (scans / "labels" / scan.name).exists():
            scan.unlink()
    project = create_project(tmp_path / "labeled", images=scans / "images", labels=scans / "labels")

    def warned(method: str) -> list[str]:
        events = list(train(project, tiny(method)))
        return [e["message"] for e in events if e["event"] == "warning"]

    (message,) = warned("mean-teacher")
    assert "No case is unlabeled" in message
    assert not warned("supervised")


@pytest.mark.parametrize(("value", "what"), [(1, "only a structure"), (0, "only background")])
def test_a_label_of_one_value_is_left_out_with_a_reason(
    project: Project, value: int, what: str
) -> None:
    only = np.full(project.read_image("scan-3").shape, 255, np.uint8)
    only[5:8, 5:8, 5:8] = value
    project.labels.save("scan-3", only)
    events = list(train(project, tiny("supervised")))
    warned = [e["message"] for e in events if e["event"] == "warning"]
    assert len(warned) == 1
    assert f"scan-3 is left out: {what} is annotated in it" in warned[0]
    # Once it is complete, there is no warning that the earlier run was trained on it.
    project.labels.save("scan-3", np.where(only == 255, 1 - value, only).astype(np.uint8))
    project.set_split("scan-3", "validation")
    events = list(train(project, tiny("supervised", init_from=project.runs.list()[-1].id)))
    assert not [e["message"] for e in events if e["event"] == "warning"]


def test_two_structures_without_background_are_learned_from(project: Project) -> None:
    project.add_class("two")
    two = np.full(project.read_image("scan-3").shape, 255, np.uint8)
    two[5:8, 5:8, 5:8], two[5:8, 5:8, 8:11] = 1, 2
    project.labels.save("scan-3", two)
    events = list(train(project, tiny("supervised")))
    assert not [e["message"] for e in events if e["event"] == "warning"]
    assert "scan-3" in project.runs.list()[-1].read_metrics()["labeled"]


def test_scans_without_a_structure_are_used_for_training(project: Project) -> None:
    shape = project.read_image("scan-3").shape
    project.labels.save("scan-3", np.zeros(shape, np.uint8))
    events = list(train(project, tiny("dycon", **{"atlas.max_registration_pairs": 4})))
    assert not [e["message"] for e in events if e["event"] == "warning"]
    labeled = [case.id for case in project.labeled_cases()]
    assert "scan-3" in project.runs.list()[-1].read_metrics()["labeled"]
    for case in labeled:
        project.labels.save(case, np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match="none of them shows a structure"):
        list(train(project, tiny("supervised")))


@pytest.mark.parametrize("saved", [False, True])
def test_lack_of_memory_advises_what_can_be_done(
    project: Project, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    real, calls = Supervised.compute_loss_terms, []

    def compute_loss_terms(self: Supervised, step: StepInputs) -> dict[str, torch.Tensor]:
        calls.append(step)
        if len(calls) > 2 * saved:
            raise RuntimeError("CUDA out of memory.")
        return real(self, step)

    monkeypatch.setattr(Supervised, "compute_loss_terms", compute_loss_terms)
    with pytest.raises(EngineError, match="ran out of memory") as reported:
        list(train(project, tiny("supervised", **{"intervals.checkpoint_s": 0.0})))
    assert "--" not in str(reported.value)  # no command line options
    assert ("checkpoint is kept: the run can be resumed" in str(reported.value)) is saved


def test_training_cases_of_earlier_runs_are_reported(project: Project) -> None:
    first, second = (case.id for case in project.labeled_cases()[:2])
    list(train(project, tiny("supervised")))
    (project.runs.list()[-1].metrics_path).unlink()  # as if it had been killed
    project.set_split(first, "validation")
    for before in (project.runs.list()[-1].id, None):
        before = before or project.runs.list()[-1].id  # a run that started from the first one
        events = list(train(project, tiny("supervised", init_from=before)))
        (message,) = [e["message"] for e in events if e["event"] == "warning"]
        assert f"trained on 1 case(s) that are now used for validation ({first})" in message
    assert second not in message


def test_batches_depend_on_seed_and_step_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "i.npy", rng.normal(size=(1, 20, 12, 20)).astype(np.float32))
    label = np.full((20, 12, 20), 255, np.uint8)
    label[10] = 0
    label[10, 4:8, 8:12] = 1
    np.save(tmp_path / "l.npy", label)
    case = LabeledCase("a", tmp_path / "i.npy", tmp_path / "l.npy")
    scan = UnlabeledCase("b", tmp_path / "i.npy")
    batches = [PatchBatchDataset([case], [scan], tiny()) for _ in range(2)]
    list(map(batches[0].__getitem__, range(3)))
    cpu = torch.device("cpu")
    one, two = (each[7].augment(cpu) for each in batches)
    for a, b in zip(one.labeled, two.labeled, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(one.unlabeled.image, two.unlabeled.image)
    assert not torch.equal(one.labeled.image, batches[0][8].augment(cpu).labeled.image)
    # Sparse labels: every patch holds something to learn from.
    labels = [batches[0][step].augment(cpu).labeled.label for step in range(20)]
    assert all((label != 255).any() for label in labels)


def test_all_methods_get_the_same_plan(tmp_path: Path) -> None:
    """A baseline with another patch would be another network's race."""
    rng = np.random.default_rng(0)
    for number in range(5):  # unlabeled scans are larger, of other voxels and brighter
        size = (20, 20, 20) if number == 0 else (30, 24, 40)
        affine = np.diag([1.0, 1.0, 1.0 if number == 0 else 1.4, 1.0])
        image = rng.normal(-500 if number == 0 else 300, 200, size).astype(np.float32)
        save_nifti(tmp_path / "i" / f"{number}.nii.gz", image, affine)
    label = np.zeros((20, 20, 20), np.uint8)
    label[5:9, 5:9, 5:9] = 1
    save_nifti(tmp_path / "l" / "0.nii.gz", label, np.eye(4))
    project = create_project(tmp_path / "p", tmp_path / "i", tmp_path / "l", ["box"])
    plans = []
    for name, changes in [*((m, {}) for m in METHODS), ("dycon", {"batch.unlabeled_size": 0})]:
        config = tiny(name, **({"batch.patch_size": None, "network.filters": None} | changes))
        state = tmp_path / f"state-{len(plans)}"
        state.mkdir()
        found = split_cases(project, config)
        data = get_result(prepare_training_data(project, config, "cpu", state / "s", found, False))
        c = data.config
        plans.append(
            (
                c.preprocessing.spacing,
                c.batch.patch_size,
                c.preprocessing.normalization,
                c.preprocessing.intensity_window,
                c.network.filters,
                c.network.half_resolution,
            )
        )
    assert len(set(plans)) == 1
    assert plans[0][0] == (1.4, 1.0, 1.0)
    assert plans[0][2] == "zscore"  # most scans are no CT


def test_a_scan_that_a_baseline_does_not_need_may_be_unreadable(project: Project) -> None:
    for path in project.image_paths("scan-4"):
        path.write_bytes(b"gone")
    assert list(train(project, tiny("supervised", steps=1)))[-1]["event"] == "finished"
    with pytest.raises(DyconError, match="scan-4"):
        list(train(project, tiny("dycon", steps=1)))


def test_scans_are_described_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    usual = Project.read_image
    monkeypatch.setattr(Project, "read_image", lambda s, c: read.append(c) or usual(s, c))
    config = tiny("supervised", steps=1, **{"batch.patch_size": None})
    list(train(project, config))
    first = project.runs.get().read_config()
    assert set(read) == {f"scan-{n}" for n in range(6)}
    read.clear()
    list(train(project, config))
    assert read == ["scan-0", "scan-1", "scan-2"]  # for the labels' grids
    assert project.runs.get().read_config() == first
    # What lies there may be damaged, or made to mislead.
    kept = sorted(project.cache_folder.glob("*.json"))
    for path, text in zip(
        kept, ["", "[]", '{"shape": [1, 2]}', '{"shape": [-1, 2, 3]}', "{}", "null"], strict=True
    ):
        path.write_text(text)
    list(train(project, config))
    assert project.runs.get().read_config() == first


def test_preparation_emits_events_during_a_slow_scan(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = preparation.prepare_image  # type: ignore[attr-defined]

    def slow(*arguments: Any) -> Any:
        time.sleep(0.5)
        return usual(*arguments)

    monkeypatch.setattr(preparation, "prepare_image", slow)
    monkeypatch.setattr(preparation, "HEARTBEAT_S", 0.1)
    events = list(train(project, tiny("supervised", steps=1)))
    done = [e["done"] for e in events if e["event"] == "preparing"]
    assert done == sorted(done)
    assert all(done.count(number) >= 3 for number in range(3))
    assert done[-1] == 3
    assert {e["total"] for e in events if e["event"] == "preparing"} == {3}


def test_nonfinite_steps_are_skipped_and_finally_end_the_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Supervised.compute_loss_terms
    calls = 0

    def compute_loss_terms(self: Supervised, step: StepInputs) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        bad = calls == 2 or calls > 4
        return {k: v * (torch.nan if bad else 1.0) for k, v in usual(self, step).items()}

    monkeypatch.setattr(Supervised, "compute_loss_terms", compute_loss_terms)
    events = []
    with pytest.raises(EngineError, match="50 steps in a row gave no finite loss"):
        events += train(project, tiny("supervised", steps=200, **{"intervals.checkpoint_s": 0.0}))
    run = project.runs.get()
    warned = [e["message"] for e in run.read_events()[0] if e["event"] == "warning"]
    assert warned[0].startswith("Step 2 was skipped because its loss was not a finite number")
    assert len(warned) == 51
    assert all(torch.isfinite(value).all() for value in load_file(run.weights_path).values())


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="Unknown setting color"):
        make_config("dycon", color="red")
    with pytest.raises(ConfigError, match="cannot be 'fast'"):
        make_config("dycon", **{"optimizer.learning_rate": "fast"})
    with pytest.raises(ConfigError, match="no preset 'best'"):
        make_config("dycon", "best")
    assert parse_overrides(["a=1", "b=[1,2]", "c=x"]) == {"a": 1, "b": [1, 2], "c": "x"}


def test_the_preset_of_the_paper_trains(project: Project) -> None:
    config = make_config("dycon", "paper", **(TINY | {"steps": 1, "network.filters": [4, 8, 8]}))
    assert config.network.aspp
    assert list(train(project, config))[-1]["event"] == "finished"


def test_stop_before_the_first_step_leaves_no_weights(project: Project) -> None:
    run = project.runs.create("dycon", tiny().to_dict())
    run.write_control(command="stop")
    events = list(train(project, tiny(), run))
    assert events[-1]["event"] == "stopped"
    assert not run.has_weights


def test_a_resumed_run_keeps_its_cases_and_labels(project: Project) -> None:
    interrupted = train(project, tiny(steps=6, **{"intervals.checkpoint_s": 0.0}))
    for event in interrupted:
        if event["event"] == "checkpoint" and event["step"] == 3:
            interrupted.close()  # type: ignore[attr-defined]
            break
    run = project.runs.list()[-1]
    before = {p.name: p.read_bytes() for p in (run.state_folder / "labels").iterdir()}
    label = np.zeros(project.read_image("scan-4").shape, np.uint8)
    label[2:5, 2:5, 2:5] = 1
    project.labels.save("scan-4", label)
    project.add_class("another")
    events = list(train(project, TrainConfig.from_dict(run.read_config()), run))
    assert (events[0]["labeled"], events[0]["unlabeled"]) == (3, 3)
    assert events[-1]["event"] == "finished"
    assert before == {p.name: p.read_bytes() for p in (run.state_folder / "labels").iterdir()}


def test_initial_weights_that_match_in_part_give_a_warning(project: Project) -> None:
    list(train(project, tiny("supervised", steps=1)))
    first = project.runs.get().id
    deeper = tiny("supervised", steps=1, **{"network.filters": [4, 8, 8, 8]}, init_from=first)
    warned = [e["message"] for e in train(project, deeper) if e["event"] == "warning"]
    assert f"Run {first} has a different network: only 60% of its weights match" in warned[0]
    project.add_class("another")  # other classes change the last layer alone
    same = tiny("supervised", steps=1, init_from=first)
    assert not [e for e in train(project, same) if e["event"] == "warning"]


def test_labeling_one_more_does_not_change_which_scans_the_plan_looks_at(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_dycon.engine.data.preparation.MAX_FINGERPRINTS", 2)
    looked: list[str] = []

    def note(project: Project, case: str) -> object:
        looked.append(case)
        return real(project, case)

    real = preparation._load_fingerprint
    monkeypatch.setattr("napari_dycon.engine.data.preparation._load_fingerprint", note)
    list(train(project, tiny("supervised", steps=1)))
    before = looked.copy()
    label = np.zeros(project.read_image("scan-5").shape, np.uint8)
    label[2:5, 2:5, 2:5] = 1
    project.labels.save("scan-5", label)
    looked.clear()
    list(train(project, tiny("supervised", steps=1)))
    assert looked == before == ["scan-0", "scan-5"]


def test_validation_cases_that_were_trained_on_are_reported(project: Project) -> None:
    list(train(project, tiny("supervised", steps=1)))
    project.set_split("scan-2", "validation")
    events = list(train(project, tiny("supervised", steps=1, init_from=project.runs.get().id)))
    warned = [e["message"] for e in events if e["event"] == "warning"]
    assert "(scan-2)" in warned[0]


@pytest.mark.parametrize("preset", list_presets())
def test_every_preset_fits_every_method(preset: str) -> None:
    for method in METHODS:
        config = make_config(method, preset)
        assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("method", METHODS)
def test_many_classes_and_channels_with_sparse_labels(tmp_path: Path, method: str) -> None:
    """Twenty classes, eight channels, every fifth slice annotated."""
    classes, channels = 20, 8
    project = Project.create(
        tmp_path / "p",
        classes=classes_from_names([f"part {i}" for i in range(classes)]),
        channels=[f"channel {i}" for i in range(channels)],
    )
    rng = np.random.default_rng(0)
    groups = []
    for case in range(3):
        label = np.zeros((20, 16, 16), np.uint8)
        label[2:18, 2:14, 2:14] = rng.integers(1, classes + 1, (16, 12, 12))
        groups.append(
            [
                save_nifti(
                    tmp_path / f"case-{case}_{channel}.nii.gz",
                    (label * (channel + 1) + rng.normal(size=label.shape)).astype(np.float32),
                )
                for channel in range(channels)
            ]
        )
    project.add_cases(groups, ids=["a", "b", "c"])
    label = np.full(project.read_image("a").shape, 255, np.uint8)
    drawn = np.zeros((4, *label.shape[1:]), np.uint8)
    drawn[:, 4:10, 4:10] = rng.integers(1, classes + 1, (4, 6, 6))
    label[::5][:4] = drawn
    project.labels.save("a", label)
    events = list(train(project, tiny(method, steps=2, **{"secl.weight": 1.0})))
    assert events[-1]["event"] == "finished"
    assert events[-1]["skipped"] == 0
    model = load_model(project.runs.get().weights_path)
    assert (model.channels, len(model.class_values)) == (channels, classes)
