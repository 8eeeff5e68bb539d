"""Predictions of many scans, of any size, and with little memory."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.nifti_files import save_nifti
from helpers.tiny_runs import TINY

from napari_dycon import io
from napari_dycon.engine.checkpoints.model_file import TrainedModel, load_model
from napari_dycon.engine.config import make_config
from napari_dycon.engine.data.preprocessing import prepare_image
from napari_dycon.engine.inference import predict, predict_scans
from napari_dycon.engine.inference.predict import extract_features, predict_volume
from napari_dycon.engine.inference.predict_scans import predict_cases, predict_files
from napari_dycon.engine.inference.progress import PredictionProgress
from napari_dycon.engine.inference.slabs import Slab, plan_slabs, resize_slab
from napari_dycon.engine.network import build_network
from napari_dycon.engine.training.run import train
from napari_dycon.errors import FileFormatError, ProjectError
from napari_dycon.project.importing.discovery import Scan
from napari_dycon.project.store import Project

CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = TINY | {"steps": 2, "atlas.weight": 0.0}


@pytest.fixture
def model(project: Project) -> TrainedModel:
    list(train(project, make_config("supervised", **SETTINGS)))
    return load_model(project.runs.get().weights_path)


def save_scans(folder: Path, *shapes: tuple[int, int, int]) -> list[Scan]:
    rng = np.random.default_rng(0)
    found = []
    for number, shape in enumerate(shapes):
        path = folder / f"s{number}.nii.gz"
        save_nifti(path, rng.normal(100, 20, shape).astype(np.float32))
        found.append(Scan(f"s{number}", (path,)))
    return found


def test_each_scan_is_read_once(
    project: Project, model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, seen = io.read_volume, []

    def counted(path: Path, *args: Any, **named: Any) -> Any:
        seen.append(Path(path).name)
        return usual(path, *args, **named)

    monkeypatch.setattr(io, "read_volume", counted)
    monkeypatch.setattr(
        "napari_dycon.project.importing.discovery.read_volume", counted, raising=False
    )
    scans = save_scans(tmp_path / "in", (20, 18, 16), (9, 18, 16))
    events = list(predict_files(scans, tmp_path / "out", model, CPU, torch.float32))
    assert [e.case for e in events] == ["s0", "s1"]
    assert sorted(seen) == ["s0.nii.gz", "s1.nii.gz"]
    assert len(list((tmp_path / "out").iterdir())) == 6
    seen.clear()
    (event,) = predict_cases(project, project.runs.get().id, model, ["scan-4"], CPU, torch.float32)
    assert event.case == "scan-4"
    assert seen == ["scan-4.nii.gz"]  # labeled ones are looked at as they were prepared


def test_no_file_is_written_if_no_scan_can_be_predicted(
    model: TrainedModel, tmp_path: Path
) -> None:
    scans = save_scans(tmp_path / "in", (20, 18, 16), (9, 18, 16))
    for scan in scans:
        scan.images[0].write_bytes(b"no scan")
    missed: list[str] = []
    out = tmp_path / "out"
    events = predict_files(
        scans, out, model, CPU, torch.float32, on_error=lambda name, _: missed.append(name)
    )
    assert list(events) == []
    assert missed == ["s0", "s1"]
    assert not out.exists()
    with pytest.raises(FileFormatError, match=r"s0\.nii\.gz"):
        list(predict_files(scans, out, model, CPU, torch.float32))


def test_a_full_disk_ends_the_prediction(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise ProjectError("the disk is full")

    monkeypatch.setattr(predict_scans, "write_map", full)
    scans = save_scans(tmp_path / "in", *[(9, 18, 16)] * 5)
    progress = PredictionProgress(5)
    events = predict_files(scans, tmp_path / "out", model, CPU, torch.float32, progress=progress)
    with pytest.raises(ProjectError, match="full"):
        list(events)
    assert progress.n_finished <= 2
    assert not list((tmp_path / "out").iterdir())


def test_progress_is_reported_before_each_scan(model: TrainedModel, tmp_path: Path) -> None:
    scans = save_scans(tmp_path / "in", *[(9, 18, 16)] * 3)
    scans[1].images[0].write_bytes(b"no scan")
    progress = PredictionProgress(3)
    progress.add(2)  # templates
    progress.finish()
    progress.finish()
    events = list(
        predict_files(
            scans, tmp_path / "out", model, CPU, torch.float32, progress=progress,
            on_error=lambda *_: None,
        )
    )  # fmt: skip
    reported = [(e.case, e.done, e.total) for e in events if e.event == "predicting"]
    assert reported == [("s0", 2, 5), ("s2", 4, 5)]
    first, second = (e.remaining_s for e in events if e.event == "predicting")
    assert first is None  # nothing was measured yet
    assert 0 <= second < 60  # of tiny scans; rounded to 0.1 s
    done = [(e.case, e.done, e.total) for e in events if e.event == "predicted"]
    assert done == [("s0", 1, 3), ("s2", 3, 3)]


def test_stored_features_equal_those_of_the_scan(project: Project, model: TrainedModel) -> None:
    volume = project.read_image("scan-4")
    found = predict_volume(model, volume, CPU)
    alone = extract_features(model, prepare_image(volume, model.config), CPU, torch.float32)
    assert len(found.features) == 2 * model.config.network.filters[-1]  # type: ignore[index]
    np.testing.assert_allclose(found.features, alone, atol=1e-4)
    assert np.std(alone) > 0


@pytest.mark.parametrize(
    "shape", [(2, 40, 33), (40, 2, 33), (33, 40, 2), (2, 2, 2), (3, 5, 2), (17, 35, 64), (7, 90, 5)]
)
@pytest.mark.parametrize("norm", ["group", "instance"])
def test_scans_of_any_size_are_predicted(
    model: TrainedModel, tmp_path: Path, shape: tuple[int, int, int], norm: str
) -> None:
    if norm == "instance":
        config = model.config.with_changes({"network.norm": norm})
        student, teacher = (build_network(config, 1, 2) for _ in range(2))
        model = dataclasses.replace(model, config=config, student=student, teacher=teacher)
    (scan,) = save_scans(tmp_path / "in", shape)
    (event,) = predict_files([scan], tmp_path / "out", model, CPU, torch.float32)
    assert event.case == "s0"
    found = io.read_volume(tmp_path / "out" / "s0_uncertainty.nii.gz").array
    assert np.isfinite(found).all()


def test_slabs_fit_into_memory_and_cover_the_scan() -> None:
    shape, prepared = (1200, 64, 64), (900, 48, 48)
    whole = plan_slabs(shape, prepared, n_classes=3, margin=32, free_bytes=None)
    assert whole == [Slab(0, 1200, 0, 900)]
    slabs = plan_slabs(shape, prepared, n_classes=3, margin=32, free_bytes=3 * 10**8)
    assert len(slabs) > 1
    assert (slabs[0].start, slabs[-1].stop) == (0, 1200)
    assert (slabs[0].prepared_start, slabs[-1].prepared_stop) == (0, 900)
    for one, other in itertools.pairwise(slabs):
        assert one.stop == other.start
        assert one.prepared_stop - other.prepared_start >= 64
    with pytest.raises(MemoryError):
        plan_slabs(shape, prepared, n_classes=3, margin=32, free_bytes=4 * 10**7)


def test_rows_of_a_slab_equal_those_of_the_resized_scan() -> None:
    outputs = torch.rand(2, 30, 7, 8)
    for shape in ((41, 9, 5), (30, 7, 8), (20, 7, 8)):
        wanted = torch.nn.functional.interpolate(
            outputs[None], size=shape, mode="trilinear", align_corners=False
        )[0]
        first = int(11 * 30 / shape[0]) - 2
        found = resize_slab(outputs[:, first:], Slab(11, 17, first, 30), shape, 30)
        torch.testing.assert_close(found, wanted[:, 11:17])


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.5, 0.8, 0.7)])
def test_a_scan_that_does_not_fit_is_predicted_in_slabs(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spacing: tuple[float, ...]
) -> None:
    (scan,) = save_scans(tmp_path / "in", (20, 18, 160))
    volume = io.read_volume(scan.images[0])
    assert volume.shape[0] == 160
    z, y, x = spacing
    config = model.config.with_changes(
        {"preprocessing.spacing": (z, y, x), "inference.tta_scales": (1.0, 1.0)}
    )
    model = dataclasses.replace(model, config=config)
    sizes: list[int] = []

    def look(network: object, _: TrainedModel, image: torch.Tensor, *rest: Any) -> torch.Tensor:
        sizes.append(image.shape[1])
        if network is model.teacher:
            image = torch.nn.functional.avg_pool3d(image, (5, 1, 1), 1, (2, 0, 0))
        one = image[0].sigmoid()
        return torch.stack([one, 1 - one])

    monkeypatch.setattr(predict, "predict_probabilities", look)
    whole = predict_volume(model, volume, CPU)
    monkeypatch.setattr(predict, "get_free_bytes", lambda _: 3 * 10**6)
    found = predict_volume(model, volume, CPU)
    assert len(sizes) > 4
    assert max(sizes[2:]) < 0.7 * sizes[0]
    assert (found.mask == whole.mask).mean() > 0.999
    np.testing.assert_allclose(found.uncertainty, whole.uncertainty, atol=1e-4)
    np.testing.assert_allclose(found.disagreement, whole.disagreement, atol=1e-4)
    monkeypatch.undo()
    monkeypatch.setattr(predict, "get_free_bytes", lambda _: 3 * 10**6)
    assert len(predict_volume(model, volume, CPU).features) == 16  # by the networks themselves
    monkeypatch.setattr(predict, "get_free_bytes", lambda _: 10**5)
    with pytest.raises(MemoryError):
        predict_volume(model, volume, CPU)
