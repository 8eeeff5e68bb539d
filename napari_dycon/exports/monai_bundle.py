"""Export of a trained model as a MONAI bundle, which runs without napari-dycon.

The folder ``bundle`` next to this file is copied unchanged, together with ``network.py``,
``windows.py`` and ``uncertainty.py`` of ``engine``. The values of a particular model are written to
the configuration of the bundle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from napari_dycon.core.atomic import (
    atomic_write,
    ensure_dir,
    temporary_path,
    write_json,
    write_text,
)
from napari_dycon.core.cleanup import remove_stale_temporaries
from napari_dycon.core.wording import format_count
from napari_dycon.engine import network
from napari_dycon.engine.checkpoints.model_file import TrainedModel, load_model
from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.inference import uncertainty, windows
from napari_dycon.errors import ConfigError, ProjectError
from napari_dycon.io.volume import INTENSITY_QUANTILES
from napari_dycon.project.models import ClassInfo

METADATA_SCHEMA_URL = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
SCRIPTS = ("__init__", "ensemble", "inferer", "predictor", "images", "spacing")


def export_monai_bundle(
    weights: Path,
    out: Path,
    *,
    name: str,
    classes: Sequence[ClassInfo],
    channels: Sequence[str],
) -> Path:
    """Write the weights of a run as a MONAI bundle; the folder is written atomically.

    Parameters
    ----------
    weights : a run's ``weights.safetensors``
    out : folder of the bundle, new or empty
    name : display name of the model
    classes : classes of the project
    channels : names of the channels, in the order of the training data

    Returns
    -------
    The folder ``out``.

    Raises
    ------
    ConfigError
        The weights cannot be read, or the number of channels differs.
    ProjectError
        The folder is not empty, or cannot be written.
    """
    model = load_model(weights)
    if len(channels) != model.channels:
        raise ConfigError(
            f"The network was trained on {format_count(model.channels, 'channel')}, but "
            f"{len(channels)} are named: {', '.join(channels)}. Choose a run of this project."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ProjectError(f"{out} is not empty. Choose a new or empty folder for the bundle.")
    class_names = {info.value: _sanitize_name(info.name) for info in classes}
    label_names = {
        0: "background",
        **{v: class_names.get(v, f"class {v}") for v in model.class_values},
    }
    channels = [_sanitize_name(channel) for channel in channels]

    ensure_dir(out.parent)
    remove_stale_temporaries(out.parent)
    temporary = temporary_path(out)
    try:
        for subfolder in ("configs", "docs", "models", "scripts"):
            ensure_dir(temporary / subfolder)
        with atomic_write(temporary / "models" / "model.safetensors") as file:
            save_file(load_file(weights), file)  # without the file header, which describes the run
        _write_code(temporary)
        write_json(temporary / "configs" / "inference.json", _build_inference_config(model))
        write_json(
            temporary / "configs" / "metadata.json",
            _build_metadata(model, _sanitize_name(name), label_names, channels),
        )
        readme = _build_readme(model, _sanitize_name(name), label_names, channels)
        write_text(temporary / "docs" / "README.md", readme)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    except OSError as error:
        raise ProjectError(
            f"The bundle could not be written to {out}: {error.strerror or error}. Check that the "
            "folder is writable and that the disk is not full."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def _read_resource(path: str) -> str:
    file = resources.files("napari_dycon.exports") / "bundle" / path
    return file.read_text(encoding="utf-8")


def _write_code(folder: Path) -> None:
    for path in ("LICENSE", "configs/logging.conf", *(f"scripts/{s}.py" for s in SCRIPTS)):
        write_text(folder / path, _read_resource(path))
    for module in (network, uncertainty, windows):  # these import only torch and MONAI
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        write_text(folder / "scripts" / Path(str(module.__file__)).name, source)


def _sanitize_name(text: str) -> str:
    """Strip leading characters by which MONAI recognizes strings to evaluate."""
    return text.strip().lstrip("$@% ") or "unnamed"


def _build_inference_config(model: TrainedModel) -> dict[str, Any]:
    """Build the configuration; the values of this model come first."""
    config = model.config
    settings = network.get_network_settings(config, model.channels, len(model.class_values) + 1)
    network_config = {"_target_": "scripts.network.SegmentationNetwork", **settings}
    values: dict[str, Any] = {
        "channels": model.channels,
        "class_values": [0, *model.class_values],
        "spacing": config.preprocessing.spacing,
        "intensity": _build_normalization(config),
        "temperature": model.temperature,
        "student": network_config,
        "teacher": network_config,
        "inferer": {
            "_target_": "scripts.inferer.ScaledWindows",
            "patch": config.batch.patch_size,
            "window_side": model.window_side,
            "scales": config.inference.tta_scales,
            "mirror": config.inference.tta_flip_left_right,
        },
    }
    template = json.loads(_read_resource("configs/inference.json"))
    return {"imports": template.pop("imports"), **values, **template}


def _build_normalization(config: TrainConfig) -> dict[str, Any]:
    """Build the MONAI transforms equivalent to the normalization of the preprocessing."""
    if (
        config.preprocessing.normalization == "clip"
        and config.preprocessing.intensity_window is not None
    ):
        low, high = config.preprocessing.intensity_window
        return {
            "_target_": "ScaleIntensityRanged",
            "keys": "image",
            "a_min": low,
            "a_max": high,
            "b_min": -1.0,
            "b_max": 1.0,
            "clip": True,
        }
    clip = {
        "_target_": "ScaleIntensityRangePercentilesd",
        "keys": "image",
        "lower": 100 * INTENSITY_QUANTILES[0],
        "upper": 100 * INTENSITY_QUANTILES[1],
        "b_min": 0.0,
        "b_max": 1.0,
        "clip": True,
        "channel_wise": True,
    }
    zscore = {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True}
    return {"_target_": "Compose", "transforms": [clip, zscore]}


def _build_metadata(
    model: TrainedModel, name: str, classes: dict[int, str], channels: Sequence[str]
) -> dict[str, Any]:
    """Build ``metadata.json`` according to the MONAI bundle specification."""
    config = model.config
    shared = {
        "type": "image",
        "modality": "n/a",
        "spatial_shape": config.batch.patch_size,
        "dtype": "float32",
        "is_patch_data": True,
    }
    image = {
        **shared,
        "format": "magnitude",
        "num_channels": model.channels,
        "value_range": [-1, 1] if config.preprocessing.normalization == "clip" else [],
        "channel_def": {str(i): channel for i, channel in enumerate(channels)},
    }
    pred = {
        **shared,
        "format": "labels",
        "num_channels": len(classes),
        "value_range": [0, 1],
        "channel_def": {str(i): label for i, label in enumerate(classes.values())},
    }
    return {
        "schema": METADATA_SCHEMA_URL,
        "version": "1.0.0",
        "changelog": {"1.0.0": "exported by napari-dycon"},
        "monai_version": _get_version("monai"),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": _get_version("numpy"),
        "required_packages_version": {p: _get_version(p) for p in ("nibabel", "safetensors")},
        "supported_apps": {},
        "name": name,
        "task": "3D segmentation of " + ", ".join(list(classes.values())[1:]),
        "description": "Student and teacher networks from semi-supervised training with "
        "napari-dycon; the prediction is the mean of their softmax outputs.",
        "authors": "The authors of the labels and the trained model",
        "copyright": "Code: the napari-dycon developers, BSD-3-Clause. Weights: the authors.",
        "data_type": "nibabel",
        "intended_use": "Research; not a medical device.",
        "label_values": {str(value): label for value, label in classes.items()},
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
    }


def _get_version(package: str) -> str:
    return metadata.version(package).split("+")[0]


def _build_readme(
    model: TrainedModel, name: str, classes: dict[int, str], channels: Sequence[str]
) -> str:
    config = model.config
    assert config.preprocessing.spacing is not None
    assert config.batch.patch_size is not None
    if len(channels) == 1:
        input_text = (
            f"Each file is one scan ({channels[0]}). If all names end in `_0000` (the nnU-Net "
            "suffix of the first\nchannel), the suffix is removed from the names of the results."
        )
    else:
        input_text = (
            "Each scan has one file per channel, on the same grid and with nnU-Net suffixes:\n\n"
            + "\n".join(f"- `NAME_{i:04d}.nii.gz`: {c}" for i, c in enumerate(channels))
        )
    if (
        config.preprocessing.normalization == "clip"
        and config.preprocessing.intensity_window is not None
    ):
        low, high = config.preprocessing.intensity_window
        intensity = f"Intensities from {low:g} to {high:g} are scaled to [-1, 1]."
    else:
        intensity = (
            "Each channel is clipped\nto its 0.5th and 99.5th percentiles, then normalized to mean "
            "0 and standard deviation 1."
        )
    views = [
        "at its original size" if scale == 1.0 else f"scaled by {scale:g}"
        for scale in dict.fromkeys(config.inference.tta_scales)
    ]
    views += ["mirrored left to right"] if config.inference.tta_flip_left_right else []
    views_text = f"Test-time augmentation: each scan is predicted {', '.join(views)}."
    if config.atlas.weight:
        views_text += (
            "\nThe atlas fusion that napari-dycon adds to its predictions is not part of this "
            "bundle."
        )
    return Template(_read_resource("docs/README.md")).substitute(
        name=name,
        input=input_text,
        classes="\n".join(
            f"| {value} | {label.replace('|', '/')} |" for value, label in classes.items()
        ),
        spacing=" × ".join(f"{s:g}" for s in config.preprocessing.spacing),
        window=" × ".join(str(int(side * model.window_side)) for side in config.batch.patch_size),
        intensity=intensity,
        views=views_text,
    )
