"""What the sections of the GPU benchmark share: settings, the project, networks, clocks."""

from __future__ import annotations

import copy
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from gpu_scans import Shape, make_project

from napari_dycon.engine.checkpoints.model_file import TrainedModel
from napari_dycon.engine.config import TrainConfig, make_config
from napari_dycon.engine.data.preparation import TrainingData, prepare_training_data
from napari_dycon.engine.data.splits import split_cases
from napari_dycon.engine.memory import get_free_bytes
from napari_dycon.engine.network import build_network
from napari_dycon.engine.training.optimizer import allocate_state, build_optimizer
from napari_dycon.engine.training.stepper import Stepper
from napari_dycon.project.store import Project

Measures = dict[str, Any]
Task = tuple[str, Callable[[], Measures]]
METHODS = ("supervised", "mean-teacher", "dycon", "secl-region", "secl-anatomical")
PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}
TINY: dict[str, Any] = {
    "batch.patch_size": [16, 16, 16],
    "network.filters": [4, 8, 8],
    "network.projection_dim": 8,
}
CPU = torch.device("cpu")


@dataclass
class SectionContext:
    """Device, scans and deadline of a section.

    ``shape`` and ``large`` are voxels ``(D, H, W)`` of the scans.
    """

    device: torch.device
    quick: bool
    data_folder: Path | None
    work: Path
    deadline: float
    shape: Shape = (88, 140, 180)
    large: Shape = (160, 320, 320)

    @classmethod
    def make(
        cls, device: str, quick: bool, data: Path | None, work: Path, deadline: float
    ) -> SectionContext:
        """Make the context of a section, with tiny scans for ``--quick``."""
        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(f"torch {torch.__version__} finds no CUDA device")
        shape = (28, 36, 40) if quick else cls.shape
        large = (32, 48, 48) if quick else cls.large
        return cls(torch.device(device), quick, data, work, deadline, shape, large)

    @cached_property
    def project(self) -> Project:
        """Project of all sections, created by the first one."""
        path_file = self.work / "project.txt"  # written last: a section may be terminated before
        if path_file.exists():
            return Project.open(Path(path_file.read_text(encoding="utf-8")))
        project = make_project(Path(tempfile.mkdtemp(dir=self.work)), self.data_folder, self.shape)
        path_file.write_text(str(project.path), encoding="utf-8")
        return project

    @property
    def cuda(self) -> bool:
        """Whether the device is a CUDA GPU."""
        return self.device.type == "cuda"

    def remaining_s(self) -> float:
        """Return the seconds until the deadline."""
        return max(self.deadline - time.monotonic(), 0.0)

    def config(self, method: str, preset: str = "left-atrium", /, **changes: Any) -> TrainConfig:
        """Return the settings of a preset for this device, tiny ones for ``--quick``."""
        extra = {
            "device": self.device.type,
            "precision": "auto",
            "atlas.max_registration_pairs": 0,
        } | changes
        if self.quick:
            extra |= TINY | {
                "network.projection_hidden": 8,
                "network.aspp": False,
                "precision": "float32",
            }
        return make_config(method, preset, **extra)

    def data(self, config: TrainConfig) -> TrainingData:
        """Plan and prepare the scans of the project as a run does."""
        state = self.work / f"state-{os.getpid()}"
        card = get_free_bytes(self.device) if self.cuda else None
        split = split_cases(self.project, config)
        preparation = prepare_training_data(
            self.project, config, self.device.type, state, split, False, card
        )
        while True:
            try:
                next(preparation)
            except StopIteration as end:
                data: TrainingData = end.value
                return data

    def synchronize(self) -> None:
        """Wait for the GPU."""
        if self.cuda:
            torch.cuda.synchronize()

    def milliseconds(self, compute: Callable[[], object], repeats: int = 1) -> float:
        """Return the wall time of a computation in milliseconds, including its work on the GPU."""
        self.synchronize()
        begin = time.perf_counter()
        for _ in range(repeats):
            compute()
        self.synchronize()
        return (time.perf_counter() - begin) / repeats * 1e3


def build_model(
    data: TrainingData, device: torch.device, *, channels_last: bool = True
) -> TrainedModel:
    """Build the networks of a run; the teacher differs slightly from the student."""
    torch.manual_seed(0)
    student = build_network(data.config, data.channels, len(data.class_values) + 1)
    teacher = copy.deepcopy(student).requires_grad_(False)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(1.0 + 0.02 * torch.randn_like(parameter))
    for network in (student, teacher):
        network.to(device)
        if channels_last:
            network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        network.train()
    return TrainedModel(student, teacher, data.config, data.class_values, data.channels)


def build_stepper(model: TrainedModel, device: torch.device, dtype: torch.dtype) -> Stepper:
    """Build the stepper of a run."""
    optimizer = build_optimizer(model.config, model.student)
    allocate_state(optimizer)
    return Stepper(model.student, model.teacher, optimizer, device, dtype)


def skip_without_cuda() -> Measures:
    """Return a note that a measurement needs CUDA."""
    return {"note": "not on this device"}


def yield_environment_tasks(context: SectionContext) -> Iterator[Task]:
    """Yield descriptions of machine, driver, versions and scans."""
    yield "machine", _describe_machine
    yield "GPU", _describe_gpu if context.cuda else skip_without_cuda
    yield "scans", lambda: _describe_scans(context)


def _describe_machine() -> Measures:
    shared = os.statvfs("/dev/shm") if Path("/dev/shm").exists() else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": cores,
        "threads": torch.get_num_threads(),
        "shm GiB": shared and round(shared.f_frsize * shared.f_blocks / 2**30, 2),
    }


def _describe_scans(context: SectionContext) -> Measures:
    cases = context.project.cases
    shapes = sorted({context.project.read_image(case.id).shape for case in cases})
    origin = "synthetic" if context.data_folder is None else context.data_folder.name
    return {"scans": len(cases), "shapes": [list(shape) for shape in shapes[:3]], "origin": origin}


def _describe_gpu() -> Measures:
    card = torch.cuda.get_device_properties(0)
    driver = Path("/proc/driver/nvidia/version")
    lines = driver.read_text(encoding="utf-8").splitlines() if driver.exists() else [""]
    free, total = torch.cuda.mem_get_info()
    return {
        "name": card.name,
        "capability": f"{card.major}.{card.minor}",
        "multiprocessors": card.multi_processor_count,
        "memory GiB": round(total / 2**30, 1),
        "free GiB": round(free / 2**30, 1),
        "driver": lines[0][:80],
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "bfloat16": torch.cuda.is_bf16_supported(including_emulation=False),
    }
