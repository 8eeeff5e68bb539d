"""Untrusted weights and training states: clear errors, and no large allocation."""

from __future__ import annotations

import json
import math
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.pickled_files import Bomb, save_array_archive, save_object_array
from helpers.tiny_runs import TINY
from safetensors.torch import load_file, save_file

from napari_dycon.engine.checkpoints.model_file import TrainedModel, load_model, save_weights
from napari_dycon.engine.checkpoints.safetensors_io import (
    MAX_HEADER_BYTES,
    open_untrusted_safetensors,
)
from napari_dycon.engine.checkpoints.training_state import (
    TrainingProgress,
    load_training_state,
    take_snapshot,
    write_snapshot,
)
from napari_dycon.engine.checkpoints.transfer import load_matching_weights
from napari_dycon.engine.config import TrainConfig, make_config, merge_settings
from napari_dycon.engine.data import preprocessing
from napari_dycon.engine.network import build_network
from napari_dycon.errors import ConfigError, EngineError

PACKAGE = Path(preprocessing.__file__).parents[2]


def make_small_config(**changes: Any) -> TrainConfig:
    return make_config(
        "dycon",
        **(TINY | {"preprocessing.spacing": [1, 1, 1], "network.half_resolution": False}),
        **changes,
    )


def make_model(**changes: Any) -> TrainedModel:
    settings = make_small_config(**changes)
    networks = [build_network(settings, 1, 2) for _ in range(2)]
    return TrainedModel(networks[0], networks[1], settings, (1,), 1)


@pytest.fixture
def weights_path(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "weights.safetensors"
    path.parent.mkdir()
    save_weights(path, make_model(), 4)
    return path


def split_file(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_weights(path: Path, header: Any, body: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def test_valid_weights_load(weights_path: Path) -> None:
    loaded = load_model(weights_path)
    assert loaded.class_values == (1,)
    with open_untrusted_safetensors(weights_path) as file:
        assert len(file.tensors) == len(loaded.student.state_dict()) * 2


def save_torch_file(path: Path, thing: object) -> None:
    torch.save({"a": torch.zeros(2)}, path)


def save_legacy_torch_file(path: Path, thing: object) -> None:
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)


def save_zip_archive(path: Path, thing: object) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(thing))


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda p, t: p.write_bytes(pickle.dumps(t, 2)), "is a Python pickle"),
        (lambda p, t: p.write_bytes(pickle.dumps(t)), "is a Python pickle"),
        (lambda p, t: p.write_bytes(b"cos\nsystem\n(S'true'\ntR."), "is a Python pickle"),
        (save_torch_file, "with a Python pickle in it"),
        (save_legacy_torch_file, "is a Python pickle"),
        (save_zip_archive, "with a Python pickle in it"),
        (save_array_archive, "zip archive"),
        (save_object_array, r"of Python objects \(a pickle\)"),
        (lambda p, t: np.save(p.open("wb"), np.zeros(3)), "is a NumPy file"),
        (lambda p, t: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "an HDF5 file"),
        (lambda p, t: p.write_bytes(b"\x1f\x8b" + bytes(99)), "compressed with gzip"),
        (lambda p, t: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
        (lambda p, t: p.write_bytes(b"<!DOCTYPE html><html></html>"), "a web page"),
        (lambda p, t: p.write_bytes(b""), "cannot be read as weights"),
        (lambda p, t: p.write_bytes(b"\x02"), "cannot be read as weights"),
        (lambda p, t: p.mkdir(), "is a folder"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_other_file_types_are_named_and_never_loaded(
    make: Callable[[Path, object], None], found: str, tmp_path: Path
) -> None:
    path, trace = tmp_path / "weights.safetensors", tmp_path / "trace"
    make(path, Bomb(trace))
    with pytest.raises(ConfigError, match=found) as caught:
        load_model(path)
    assert str(caught.value).startswith("weights.safetensors ")
    assert "\n" not in str(caught.value)
    if "pickle" in found:
        assert "can run programs when opened" in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("ending", [".pt", ".pth", ".pkl", ".ckpt", ".npz", ".joblib"])
def test_pickle_files_are_refused_and_named(ending: str, weights_path: Path) -> None:
    path = weights_path.rename(weights_path.with_suffix(ending))
    with pytest.raises(ConfigError, match="is or may hold a Python pickle, which can run programs"):
        load_model(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
def test_a_pipe_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights.safetensors")
    with pytest.raises(ConfigError, match="is a pipe, not a file"):
        load_model(tmp_path / "weights.safetensors")


def get_first_tensor(header: dict[str, Any]) -> dict[str, Any]:
    return next(value for name, value in header.items() if name != "__metadata__")


EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [9, 9]}


def change_metadata(header: dict[str, Any], **changes: Any) -> None:
    values = json.loads(header["__metadata__"]["about"])
    values.update(changes)
    header["__metadata__"]["about"] = json.dumps(values)


def change_setting(header: dict[str, Any], **changes: Any) -> None:
    config = json.loads(header["__metadata__"]["about"])["config"]
    change_metadata(header, config=merge_settings(config, changes))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda h: get_first_tensor(h).update(shape=[10**12]), "invalid shape"),
        (lambda h: get_first_tensor(h).update(shape=[2**32, 2**32]), "overflow"),
        (lambda h: get_first_tensor(h).update(shape=[-1, -108]), "invalid value: integer `-1`"),
        (lambda h: get_first_tensor(h).update(shape=[1.5]), "invalid type"),
        (lambda h: get_first_tensor(h).update(shape=[1] * 9), "invalid shape"),
        (lambda h: get_first_tensor(h).update(shape="a"), "invalid type"),
        (lambda h: get_first_tensor(h).update(dtype="F128"), "unknown variant"),
        (lambda h: get_first_tensor(h).update(dtype=["F32"]), "invalid type"),
        (lambda h: get_first_tensor(h).update(data_offsets=[2**63, 2**64]), "invalid type"),
        (lambda h: get_first_tensor(h).update(data_offsets=[0]), "invalid length"),
        (lambda h: get_first_tensor(h).update(extra=1), "has an invalid description"),
        (lambda h: h.update(a=[]), "has an invalid description"),
        (lambda h: h.update(a={**get_first_tensor(h)}), "invalid offset"),
        (lambda h: h.pop(next(n for n in h if n != "__metadata__")), "invalid offset"),
        (lambda h: h.update(a=dict(EMPTY)), "invalid offset"),
        (lambda h: h.update(__metadata__={"format": 1}), "expected a string"),
        (lambda h: h.update(__metadata__=[]), "expected a map"),
        (lambda h: h["__metadata__"].update(format="pt"), "no weights of this program"),
        (lambda h: h["__metadata__"].update(version="9" * 5), "newer version"),
        (lambda h: h["__metadata__"].update(version="-1"), "its version is missing"),
        (lambda h: h["__metadata__"].update(version="9" * 5000), "its version is missing"),
        (lambda h: h["__metadata__"].update(about="[" * 10**5), "its description is missing"),
        (lambda h: change_metadata(h, class_values=[1, 1]), "its list of classes"),
        (lambda h: change_metadata(h, class_values=[0]), "its list of classes"),
        (lambda h: change_metadata(h, class_values=list(range(1, 300))), "its list of classes"),
        (lambda h: change_metadata(h, class_values="1"), "its list of classes"),
        (lambda h: change_metadata(h, channels=10**9), "number of channels"),
        (lambda h: change_metadata(h, channels=True), "number of channels"),
        (lambda h: change_metadata(h, temperature=0), "its temperature"),
        (lambda h: change_metadata(h, temperature=10**400), "its temperature"),
        (lambda h: change_metadata(h, window_side=9), "its window size"),
        (lambda h: change_metadata(h, window_side="1.25"), "its window size"),
        (lambda h: change_metadata(h, window_side=float("nan")), "its description is missing"),
        (lambda h: change_metadata(h, window_side=None), "its window size"),
        (lambda h: change_metadata(h, config=None), "its settings"),
        (lambda h: change_metadata(h, channels=2), "does not match its settings"),
        (lambda h: change_metadata(h, class_values=[1, 2]), "does not match its settings"),
        (lambda h: change_setting(h, **{"network.aspp": True}), "lacks the tensor|another kind"),
        (
            lambda h: change_setting(h, **{"network.filters": [10**9] * 3}),
            "filters is 1000000000; expected 1 to 1,024",
        ),
        (lambda h: change_setting(h, **{"network.filters": [4] * 10**4}), "expected at most 8"),
        (
            lambda h: change_setting(h, **{"network.filters": None}),
            "its filters, patch and spacing",
        ),
        (lambda h: change_setting(h, **{"network.filters": [0, 8, 8]}), "filters is 0"),
        (
            lambda h: change_setting(h, **{"batch.patch_size": [10**6] * 3}),
            "patch_size is 1000000; expected 1 to 1,024",
        ),
        (
            lambda h: change_setting(h, **{"batch.patch_size": [1024] * 3}),
            "more than 134,217,728 voxels",
        ),
        (
            lambda h: change_setting(h, **{"network.projection_hidden": 10**9}),
            "projection_hidden is 1000000000",
        ),
        (
            lambda h: change_setting(h, **{"network.projection_dim": 10**5000}),
            "digits|damaged|descr",
        ),
        (lambda h: change_setting(h, **{"preprocessing.spacing": [0, 1, 1]}), "spacing is 0"),
        (
            lambda h: change_setting(h, **{"optimizer.learning_rate": 10**400}),
            "learning_rate cannot be a number of more than 12",
        ),
        (
            lambda h: change_setting(h, **{"inference.tta_scales": [1.0] * 10**5}),
            "expected at most 8",
        ),
        (lambda h: change_setting(h, surprise=1), "Unknown setting surprise"),
    ],
)  # fmt: skip
def test_misleading_headers_are_refused(
    change: Callable[[dict[str, Any]], object], found: str, weights_path: Path
) -> None:
    sys.set_int_max_str_digits(0)  # so that absurd numbers can be written
    try:
        header, body = split_file(weights_path)
        change(header)
        write_weights(weights_path, header, body)
    finally:
        sys.set_int_max_str_digits(4300)
    with pytest.raises(ConfigError, match=found) as caught:
        load_model(weights_path)
    assert len(str(caught.value)) < 2500


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b'{"a": 1, "a": 1}', "occurs twice"),
        (b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested too deeply"),
        (b'{"a": NaN}', "not a JSON number"),
        (b'{"a"', "its header is not valid JSON"),
        (b'{"\xff": 1}', "its header is not valid JSON"),
    ],
)
def test_malformed_headers_are_refused(text: bytes, found: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=found):
        load_model(write_weights(tmp_path / "weights.safetensors", text, b""))


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, MAX_HEADER_BYTES + 1, 10_000])
def test_header_lengths_are_limited(length: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{" * 900)
    with pytest.raises(ConfigError, match="one that is too long"):
        load_model(path)


@pytest.mark.parametrize("cut", [-1, 1])
def test_truncated_and_oversized_files_are_refused(cut: int, weights_path: Path) -> None:
    data = weights_path.read_bytes()
    weights_path.write_bytes(data[:-1] if cut < 0 else data + b"x")
    with pytest.raises(ConfigError, match="file not fully covered"):
        load_model(weights_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nonfinite_values_are_refused(value: float, weights_path: Path) -> None:
    header, body = split_file(weights_path)
    write_weights(weights_path, header, struct.pack("<f", value) + body[4:])
    with pytest.raises(ConfigError, match=r"not finite \(NaN or infinity\) in student\."):
        load_model(weights_path)
    write_weights(weights_path, header, struct.pack("<f", value) * (len(body) // 4))
    target = make_model()
    with pytest.raises(ConfigError, match="not finite"):
        load_matching_weights(target, weights_path)


def test_implausible_sizes_allocate_no_memory(weights_path: Path) -> None:
    """In a process that may have 1 GB more than it has."""
    header, body = split_file(weights_path)
    change_setting(header, filters=[1024] * 8, patch=[128] * 3)
    write_weights(weights_path, header, body)
    code = (
        "import resource, sys, psutil\n"
        "from napari_dycon.engine.checkpoints.model_file import load_model\n"
        "from napari_dycon.errors import ConfigError\n"
        "from pathlib import Path\n"
        "most = psutil.Process().memory_info().vms + 2**30\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "try:\n    load_model(Path(sys.argv[1]))\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(weights_path)],
        capture_output=True, text=True, check=False, cwd=PACKAGE.parent,
    )  # fmt: skip
    assert "are incompatible with this version" in done.stdout, done.stderr


def make_stepped_optimizer(settings: TrainedModel) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(settings.student.parameters())
    for parameter in settings.student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return optimizer


def test_training_states_are_checked_like_weights(tmp_path: Path) -> None:
    path, made = tmp_path / "state.safetensors", make_model()
    optimizer = make_stepped_optimizer(made)
    progress = TrainingProgress(step=3, elapsed_s=1.5, skipped_steps=0)
    snapshot = take_snapshot(made, optimizer, progress)
    write_snapshot(snapshot, tmp_path / "weights.safetensors", path)
    assert load_training_state(path, made, optimizer) == progress
    header, body = split_file(path)
    name = next(n for n in header if n.startswith("optimizer.") and n.endswith("exp_avg"))
    for other in ("optimizer.99999.exp_avg", "optimizer.0.surprise", "optimizer.x", "student.x"):
        write_weights(path, {(other if n == name else n): v for n, v in header.items()}, body)
        with pytest.raises(EngineError, match="does not fit its settings"):
            load_training_state(path, made, optimizer)
    valid = progress.model_dump()
    invalid = ({"step": -1}, {"step": True}, {"elapsed_s": "1"}, {"precision": {"cpu": "float8"}})
    for wrong in (None, {}, *({**valid, **changes} for changes in invalid)):
        changed = json.loads(json.dumps(header))
        change_metadata(changed, progress=wrong)
        write_weights(path, changed, body)
        with pytest.raises(EngineError, match="does not fit its settings"):
            load_training_state(path, made, optimizer)
    path.write_bytes(pickle.dumps(valid))
    with pytest.raises(ConfigError, match="is a Python pickle"):
        load_training_state(path, made, optimizer)


def test_only_matching_tensors_are_loaded_from_other_weights(
    weights_path: Path, tmp_path: Path
) -> None:
    assert load_matching_weights(make_model(), weights_path) == 1.0
    other = make_model(**{"network.norm": "batch"})
    assert 0 < load_matching_weights(other, weights_path) < 1.0
    save_file(load_file(weights_path), weights_path)
    with pytest.raises(ConfigError, match="no weights of this program"):
        load_matching_weights(make_model(), weights_path)
