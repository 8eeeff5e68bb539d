"""Folder layouts in which the field's benchmarks are handed out, recognized and read as cases.

- BraTS 2019: ``HGG/ID/ID_flair.nii.gz`` (also ``_t1``, ``_t1ce``, ``_t2``, and ``_seg`` with the
  values 1, 2 and 4), with or without the folders ``HGG`` and ``LGG``.
- Left atrium 2018: ``ID/lgemri.nrrd`` and ``ID/laendo.nrrd`` (255 is the atrium), below a folder of
  the training set; those below a testing set beside it are cases without labels.
- Pancreas-CT: DICOM below ``PANCREAS_0001``, ``label0001.nii.gz`` in a folder beside or above. A
  label whose header puts it elsewhere than its scan is refused, as everywhere: labels of the first
  release lie upside down and have to be converted first.
- nnU-Net raw: ``imagesTr/CASE_0000.nii.gz``, ``labelsTr/CASE.nii.gz`` and ``dataset.json`` with the
  names of channels and classes; ``imagesTs`` are cases without labels. "ignore" becomes "not
  annotated".
- Medical Segmentation Decathlon: the same with ``imagesTr/CASE.nii.gz``, 4D where there are several
  channels.
- ISLES 2022: BIDS, ``sub-ID/ses-0001/dwi/*_dwi.nii.gz`` and ``*_adc.nii.gz``, masks below
  ``derivatives``. Its FLAIR lies on another grid and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_dycon.core.types import UNANNOTATED
from napari_dycon.core.untrusted import read_json
from napari_dycon.errors import UserError
from napari_dycon.io import get_scan_file
from napari_dycon.project.importing.discovery import contains_scans, find_labels, find_scans


@dataclass(frozen=True)
class LayoutCase:
    """One case of a layout: a file a channel where there is one, and its label if there is one."""

    id: str
    images: Sequence[Path | None]
    label: Path | None
    is_test: bool = False  # of the part that the data set itself keeps for tests


@dataclass(frozen=True)
class Layout:
    """A folder that was recognized."""

    name: str
    channels: tuple[str, ...]
    classes: dict[int, str]
    cases: list[LayoutCase]
    value_map: dict[int, int] = field(
        default_factory=dict
    )  # values of labels that mean others here

    def select_images(self, case: LayoutCase, channels: Sequence[int]) -> list[Path]:
        """Files of a case for these channels; a :class:`UserError` tells which are not there."""
        images = [case.images[n] for n in channels]
        missing = [self.channels[n] for n in channels if case.images[n] is None]
        if missing:
            wanted = ", ".join(self.channels[n] for n in channels)
            raise UserError(
                f"Case {case.id} has no {' and no '.join(missing)} image; expected one file each "
                f"for {wanted}. Complete the case or move it away."
            )
        return [path for path in images if path is not None]


MAX_SUBFOLDERS = 20  # folders looked into for a dataset
MAX_DESCRIPTION_BYTES = 2**24  # bytes of a data set's own description
BRATS_CHANNELS = ("flair", "t1", "t1ce", "t2")
BRATS_CLASSES = {1: "necrotic core", 2: "edema", 4: "enhancing tumor"}
ISLES_CHANNELS = ("dwi", "adc")


def detect_layout(folder: Path) -> Layout | None:
    """Return the layout of a folder, or ``None`` when it has none of those known here.

    A dataset may lie in the only folder in the given one, as it does in what an archive unpacks to.
    Beside others it is not taken: they would be passed over in silence.

    Raises
    ------
    UserError
        It is one of them but not as it should be, a case is there twice, it holds several of them,
        or it cannot be read.
    """
    folder = folder.absolute()  # cases are called by their folders, which "." does not name
    try:
        if (layout := _detect(folder)) is not None or contains_scans(folder) or not folder.is_dir():
            return layout
        inner = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
        inner.sort(key=Path.is_symlink, reverse=True)  # a folder is found as itself, not by a link
        subfolders = sorted({path.resolve(): path for path in inner}.values())
        if len(subfolders) == 1:
            return _detect(subfolders[0])
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read ({error.strerror}). Choose another, or change who "
            "may read it."
        ) from None
    if len(subfolders) > MAX_SUBFOLDERS:
        return None  # these are patients
    datasets = [path.name for path in subfolders if _is_dataset(path)]
    if len(datasets) > 1:
        raise UserError(
            f"{folder} holds {len(datasets)} datasets: {', '.join(datasets)}. Choose one of these "
            "folders."
        )
    return None


def _is_dataset(folder: Path) -> bool:
    """Whether a folder among others is a dataset and not a patient, who is a single case."""
    try:
        layout = _detect(folder)
    except OSError:  # a folder that may not be read is none to choose
        return False
    except UserError:
        return True
    return layout is not None and len(layout.cases) > 1


def _detect(folder: Path) -> Layout | None:
    """The layout of this very folder."""
    readers: tuple[Callable[[Path], Layout | None], ...] = (
        _read_nnunet,
        _read_brats,
        _read_isles,
        _read_left_atrium,
        _read_pancreas,
    )
    for reader in readers:
        if (layout := reader(folder)) is not None:
            _check_cases(layout, folder)
            return layout
    return None


def _check_cases(layout: Layout, folder: Path) -> None:
    known: dict[str, LayoutCase] = {}
    for case in layout.cases:
        if len(case.images) != len(layout.channels):
            raise UserError(
                f"Case {case.id} has {len(case.images)} channel(s); expected "
                f"{len(layout.channels)}, as the dataset describes: {', '.join(layout.channels)}. "
                "Correct dataset.json, or complete the case."
            )
        if case.id in known:
            one, other = (
                next(
                    get_scan_file(path).relative_to(folder)
                    for path in found.images
                    if path is not None
                )
                for found in (known[case.id], case)
            )
            raise UserError(
                f"{folder} holds case {case.id} twice, as {one} and {other}; expected each once. "
                "Move one of them away."
            )
        known[case.id] = case


def _read_nnunet(folder: Path) -> Layout | None:
    """nnU-Net raw and Medical Segmentation Decathlon."""
    description = folder / "dataset.json"
    if not description.is_file() or not (folder / "imagesTr").is_dir():
        return None
    try:
        values = _require_mapping(read_json(description, MAX_DESCRIPTION_BYTES), "it")
        channels, classes, ignore = _read_channel_names(values), *_read_classes(values)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{description} cannot be read as the description of a dataset ({error}). Expected the "
            "dataset.json of nnU-Net or of the Medical Segmentation Decathlon."
        ) from None
    labels = find_labels(folder / "labelsTr") if contains_scans(folder / "labelsTr") else {}
    scans = find_scans(folder / "imagesTr", "images", known_names=labels)
    cases = [LayoutCase(scan.name, list(scan.images), labels.get(scan.name)) for scan in scans]
    if stray := sorted(set(labels) - {scan.name for scan in scans}):
        raise UserError(
            f"Label {stray[0]} in labelsTr of {folder} has no scan in imagesTr. Expected a scan "
            "for each label; was a part of the dataset not copied?"
        )
    if contains_scans(folder / "imagesTs"):
        known = {case.id for case in cases}
        cases += [
            LayoutCase(
                f"{scan.name}{'-Ts' * (scan.name in known)}", list(scan.images), None, is_test=True
            )
            for scan in find_scans(folder / "imagesTs", "images")
        ]
    return Layout(
        str(values.get("name") or folder.name),
        channels,
        classes,
        cases,
        {} if ignore is None else {ignore: UNANNOTATED},
    )


def _require_mapping(values: Any, name: str) -> dict[str, Any]:
    """Pairs of dataset.json; a ValueError tells a person what is not as expected."""
    if not isinstance(values, dict) or not values:
        raise ValueError(f"{name} is no list of names and values")
    return values


def _read_channel_names(values: dict[str, Any]) -> tuple[str, ...]:
    key = "channel_names" if "channel_names" in values else "modality"
    names = _require_mapping(values.get(key), f'"{key}"')
    if not all(str(number).isdecimal() for number in names):
        raise ValueError(f'"{key}" does not number the channels')
    return tuple(str(names[number]) for number in sorted(names, key=int))


def _read_classes(values: dict[str, Any]) -> tuple[dict[int, str], int | None]:
    """Names by value, and the value that means "not annotated"."""
    classes: dict[int, str] = {}
    ignore = None
    for key, value in _require_mapping(values.get("labels"), '"labels"').items():
        # nnU-Net's second version has names first, its first one and the Decathlon values.
        number, name = (key, str(value)) if key.isdecimal() else (value, key)
        if isinstance(number, list):
            raise UserError(
                f"The dataset trains on regions ({name}); expected one value a structure. List "
                "the values by themselves in dataset.json."
            )
        if not str(number).isdecimal() or not 0 <= int(number) < UNANNOTATED or not name.strip():
            raise ValueError(f'"labels" gives {name!r} the value {number!r}; expected 0 to 254')
        if name == "ignore":
            ignore = int(number)
        elif int(number):
            classes[int(number)] = name.strip()
    if not classes:
        raise ValueError('"labels" names no structure')
    return classes, ignore


def _read_left_atrium(folder: Path) -> Layout | None:
    scans = [(scan, False) for scan in sorted(folder.glob("*/lgemri.nrrd"))]
    for scan in sorted(folder.glob("*/*/lgemri.nrrd")):
        scans.append((scan, scan.parts[-3].casefold().startswith("test")))
    if not scans:
        return None
    if all(test for _, test in scans):  # chosen by itself
        scans = [(scan, False) for scan, _ in scans]
    cases = []
    for scan, test in scans:
        label = scan.with_name("laendo.nrrd")
        has_label = label.is_file() and not test
        cases.append(LayoutCase(scan.parent.name, [scan], label if has_label else None, test))
    return Layout("Left atrium 2018", ("LGE MRI",), {1: "left atrium"}, cases, {255: 1})


def _read_pancreas(folder: Path) -> Layout | None:
    patients = sorted(
        p for way in ("", "*/", "*/*/") for p in folder.glob(f"{way}PANCREAS_*") if p.is_dir()
    )
    if not patients:
        return None
    labels = {
        path.name[5:9]: path
        for way in ("", "*/", "*/*/")
        for path in sorted(folder.glob(f"{way}label[0-9][0-9][0-9][0-9].nii*"))
    }
    cases = []
    for patient in patients:
        scans = find_scans(patient, "images")
        if len(scans) != 1:
            raise UserError(
                f"{patient.name} holds {len(scans)} series; expected one. Move the others away."
            )
        label = labels.get(patient.name.removeprefix("PANCREAS_"))
        cases.append(LayoutCase(patient.name, list(scans[0].images), label))
    return Layout("Pancreas-CT", ("CT",), {1: "pancreas"}, cases)


def _read_brats(folder: Path) -> Layout | None:
    flair_files = sorted({*folder.glob("*/*_flair.nii*"), *folder.glob("[HL]GG/*/*_flair.nii*")})
    images_by_patient = {}
    for flair in flair_files:
        name = flair.name.split("_flair.nii")[0]
        if name == flair.parent.name:
            images_by_patient[flair.parent] = [
                _find_image(flair.parent, f"{name}_{channel}") for channel in BRATS_CHANNELS
            ]
    if not any(all(images) for images in images_by_patient.values()):
        return None  # some other set that happens to have a FLAIR
    cases = [
        LayoutCase(patient.name, images, _find_image(patient, f"{patient.name}_seg"))
        for patient, images in images_by_patient.items()
    ]
    return Layout("BraTS 2019", BRATS_CHANNELS, BRATS_CLASSES, cases)


def _read_isles(folder: Path) -> Layout | None:
    cases = []
    root = folder / "rawdata" if (folder / "rawdata").is_dir() else folder
    # The archive has a folder dwi in every session, the challenge's own repository has none.
    for dwi in sorted(
        {*root.glob("sub-*/ses-*/dwi/*_dwi.nii*"), *root.glob("sub-*/ses-*/*_dwi.nii*")}
    ):
        session = dwi.parents[1] if dwi.parent.name == "dwi" else dwi.parent
        subject = session.parent.name
        adc = next(iter(sorted(dwi.parent.glob("*_adc.nii*"))), None)
        if adc is None:  # later editions keep it beside the folder
            adc = next(iter(sorted(session.glob("**/*_adc.nii*"))), None)
        masks = sorted(folder.glob(f"derivatives/**/{subject}/**/*_msk.nii*"))
        cases.append(LayoutCase(subject, [dwi, adc], masks[0] if masks else None))
    return Layout("ISLES 2022", ISLES_CHANNELS, {1: "infarct"}, cases) if cases else None


def _find_image(folder: Path, stem: str) -> Path | None:
    for ending in (".nii.gz", ".nii"):
        if (path := folder / f"{stem}{ending}").is_file():
            return path
    return None
