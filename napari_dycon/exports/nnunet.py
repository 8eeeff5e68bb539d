"""Export of a project as a dataset in the raw layout of nnU-Net v2.

Scans are rewritten on their own grid, so that no free-text header fields are copied and the grids
of image and label are identical. Label values become 0, 1, ... without gaps, as nnU-Net requires;
the project's values, ids and splits are stored in ``dataset.json`` under ``napari_dycon``, which
nnU-Net ignores.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_dycon import io
from napari_dycon.core.atomic import ensure_dir, temporary_path, write_json
from napari_dycon.core.cleanup import remove_stale_temporaries
from napari_dycon.core.types import UNANNOTATED, ItemProgressCallback, LabelArray
from napari_dycon.core.wording import format_count
from napari_dycon.engine.data.planning import Fingerprint, compute_fingerprint, is_probably_ct
from napari_dycon.errors import ConfigError, LabelError, ProjectError, UserError
from napari_dycon.io.volume import Volume
from napari_dycon.project.case_ids import unique_case_id
from napari_dycon.project.label_rules import check_values, compute_label_status
from napari_dycon.project.models import Case, ClassInfo, Status
from napari_dycon.project.store import Project

FILE_SUFFIX = ".nii.gz"
SPLITS_FILE = "splits_final.json"
MAX_DATASET_ID = 999
RESERVED_LABELS = ("background", "ignore")  # label names reserved by nnU-Net


def write_nnunet(
    project: Project,
    out: Path | str,
    *,
    dataset_id: int = 1,
    name: str | None = None,
    on_progress: ItemProgressCallback | None = None,
) -> Path:
    """Write ``DatasetXXX_Name`` with ``imagesTr``, ``labelsTr``, ``imagesTs``, ``dataset.json``.

    Annotated cases, including those of the validation split, are written as training cases; the
    others go to ``imagesTs``. Unannotated voxels get nnU-Net's ``ignore`` label, the highest value.
    nnU-Net selects the normalization by channel name: a first channel in Hounsfield units is named
    ``CT``. If there are validation cases, ``splits_final.json`` contains the project's split; to
    use it, copy it to the dataset's folder in ``nnUNet_preprocessed``.

    Parameters
    ----------
    out : folder of datasets (``nnUNet_raw``); created if missing
    dataset_id : number of the dataset, 1 to 999, unique in ``out``
    name : name of the dataset; by default the project's
    on_progress : called after each case with the number of cases done, their total, and the case id

    Returns
    -------
    Folder of the dataset, written atomically.

    Raises
    ------
    ConfigError, UserError
        The number is out of range or taken, no case is annotated, or the file of a scan is missing.
    LabelError, GeometryError
        A class has a name reserved by nnU-Net, or a label does not fit its scan.
    """
    out = Path(out)
    folder = _get_dataset_folder(out, dataset_id, project.name if name is None else name)
    values = _consecutive_values(project.classes)
    ensure_dir(out)
    remove_stale_temporaries(out)
    temporary = temporary_path(folder)
    try:
        _write_cases(temporary, project, values, on_progress)
        os.replace(temporary, folder)
    except OSError as error:
        raise ProjectError(
            f"{folder.name} could not be written to {out}: {error.strerror or error}. Check that "
            "the folder is writable and that the disk is not full."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def find_free_dataset_id(out: Path) -> int:
    """Return the lowest number that no dataset in a folder has; 1 if all are taken."""
    return next((n for n in range(1, MAX_DATASET_ID + 1) if not _list_datasets(out, n)), 1)


def describe_dataset(folder: Path, dataset_id: int) -> list[str]:
    """Describe a dataset that was written, and how nnU-Net uses it."""
    counts = [sum(1 for _ in (folder / name).iterdir()) for name in ("labelsTr", "imagesTs")]
    n_labels, n_files = counts
    texts = [f"{format_count(n_labels, 'case')} with labels in imagesTr and labelsTr"]
    if n_files:
        texts.append(f"{format_count(n_files, 'file')} of cases without labels in imagesTs")
    lines = [f"{', '.join(texts)}."]
    if (folder / SPLITS_FILE).exists():
        lines.append(
            f"{SPLITS_FILE} has the validation cases: copy it to "
            f"nnUNet_preprocessed/{folder.name} to use it."
        )
    lines.append(
        f"Next: nnUNet_raw={shlex.quote(str(folder.parent))} nnUNetv2_plan_and_preprocess "
        f"-d {dataset_id}"
    )
    return lines


def _list_datasets(out: Path, dataset_id: int) -> list[str]:
    return sorted(path.name for path in out.glob(f"Dataset{dataset_id:03d}*"))


def _write_cases(
    folder: Path, project: Project, values: dict[int, int], on_progress: ItemProgressCallback | None
) -> None:
    cases = project.cases
    labels = {
        case.id: path
        for case in cases
        if case.status != Status.UNLABELED and (path := project.labels.path(case.id)).exists()
    }
    if not labels:
        raise UserError(
            f"{project.name} has no annotated case, but nnU-Net needs at least one for training. "
            "Label at least one scan."
        )
    _check_scans(project, cases)
    for subfolder in ("imagesTr", "labelsTr", "imagesTs"):
        ensure_dir(folder / subfolder)
    names = _assign_names(cases)
    training: list[Case] = []
    fingerprints: list[Fingerprint] = []
    is_sparse = False
    ignore_value = len(values) + 1
    for number, case in enumerate(cases, start=1):
        scan = project.read_image(case.id)
        fingerprints.append(compute_fingerprint(scan.array, scan.spacing_mm))
        label = _read_label(project, case, labels.get(case.id), scan)
        if label is not None:
            training.append(case)
            is_sparse |= bool((label == UNANNOTATED).any())
            path = folder / "labelsTr" / f"{names[case.id]}{FILE_SUFFIX}"
            io.write_mask(_remap_label(label, values, ignore_value), reference=scan, path=path)
        subfolder = "imagesTs" if label is None else "imagesTr"
        for index, channel in enumerate(scan.array.reshape(-1, *scan.shape)):
            path = folder / subfolder / f"{names[case.id]}_{index:04d}{FILE_SUFFIX}"
            io.write_map(channel, reference=scan, path=path)
        if on_progress:
            on_progress(number, len(cases), case.id)
    if not training:
        raise UserError(
            f"{project.name} has labels, but none of them has annotated voxels. Label at least "
            "one scan."
        )
    channels = [
        "CT" if is_probably_ct(fingerprints) else project.channels[0],
        *project.channels[1:],
    ]
    description = _build_description(project, channels, names, values, len(training), is_sparse)
    write_json(folder / "dataset.json", description)
    split_ids = {
        key: [names[c.id] for c in training if c.split == split]
        for key, split in (("train", "train"), ("val", "validation"))
    }
    if all(split_ids.values()):
        write_json(folder / SPLITS_FILE, [split_ids])


def _build_description(
    project: Project,
    channels: Sequence[str],
    names: dict[str, str],
    values: dict[int, int],
    n_training: int,
    is_sparse: bool,
) -> dict[str, Any]:
    """Build ``dataset.json``; nnU-Net ignores the last field."""
    labels = {"background": 0}
    labels |= {c.name: values[c.value] for c in sorted(project.classes, key=lambda c: c.value)}
    if is_sparse:
        labels["ignore"] = len(values) + 1
    return {
        "channel_names": {str(i): channel for i, channel in enumerate(channels)},
        "labels": labels,
        "numTraining": n_training,
        "file_ending": FILE_SUFFIX,
        "napari_dycon": {
            "original_channels": project.channels,
            "original_values": {c.name: c.value for c in project.classes},
            "cases": {
                names[case.id]: {"id": case.id, "split": case.split, "status": case.status}
                for case in project.cases
            },
        },
    }


def _get_dataset_folder(out: Path, dataset_id: int, name: str) -> Path:
    if not 1 <= dataset_id <= MAX_DATASET_ID:
        raise ConfigError(f"Expected an nnU-Net dataset number from 1 to 999, found {dataset_id}.")
    if existing := _list_datasets(out, dataset_id):
        raise UserError(
            f"{out} already contains {existing[0]}, and nnU-Net dataset numbers must be unique. "
            f"Choose another number, such as {find_free_dataset_id(out)}, or another folder."
        )
    return out / f"Dataset{dataset_id:03d}_{_ascii_name(name).strip('_-') or 'project'}"


def _consecutive_values(classes: Sequence[ClassInfo]) -> dict[int, int]:
    """Map the class values to 1, 2, ... in ascending order."""
    for info in classes:
        if info.name in RESERVED_LABELS:
            raise LabelError(
                f"The class name '{info.name}' is reserved by nnU-Net. Rename the class."
            )
    return {value: i for i, value in enumerate(sorted(c.value for c in classes), start=1)}


def _remap_label(label: LabelArray, values: dict[int, int], ignore_value: int) -> LabelArray:
    lookup = np.zeros(256, np.uint8)
    for value, new in values.items():
        lookup[value] = new
    lookup[UNANNOTATED] = ignore_value
    return np.asarray(lookup[label], np.uint8)


def _read_label(project: Project, case: Case, path: Path | None, scan: Volume) -> LabelArray | None:
    """Read and check the label of a case; ``None`` if no voxel is annotated."""
    if path is None:
        return None
    label = io.read_label(path, reference=scan).array
    check_values(label, project.classes, f"The label of {case.id}")
    return None if compute_label_status(label) == Status.UNLABELED else label


def _check_scans(project: Project, cases: Sequence[Case]) -> None:
    """Check that all scans exist before writing, since reading them can take long."""
    for case in cases:
        for path in project.image_paths(case.id):
            if not path.exists():
                raise UserError(
                    f"The scan of case {case.id} is missing: {path} was not found. Move it back "
                    "to this path."
                )


def _assign_names(cases: Sequence[Case]) -> dict[str, str]:
    """Assign unique names that are valid in nnU-Net; most case ids already are."""
    taken_names: set[str] = set()
    names = {}
    for case in cases:
        name = _ascii_name(case.id)
        if name.endswith("_seg"):  # suffix of preprocessed labels; nnU-Net would skip the case
            name += "_"
        names[case.id] = unique_case_id(name, taken_names)
        taken_names.add(names[case.id].lower())
    return names


def _ascii_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)
