"""Which device and precision a run uses, and why."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from napari_dycon.errors import ConfigError


class Device(NamedTuple):
    """The chosen device, and the reason in words for the person who waits for it."""

    device: torch.device
    reason: str


def choose_device(wanted: str) -> Device:
    """Pick CUDA, then MPS, then the CPU; or exactly what was asked for, or a clear error."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted in ("auto", "cuda") and cuda:
        return Device(torch.device("cuda"), f"GPU: {torch.cuda.get_device_name()}")
    if wanted in ("auto", "mps") and mps:
        return Device(torch.device("mps"), "GPU: Apple Metal")
    if wanted == "cuda":
        raise ConfigError(f"Device cuda was asked for, but {_why_no_cuda()}. Use --device auto.")
    if wanted == "mps":
        raise ConfigError(
            "Device mps was asked for, but this machine has no Apple GPU that torch can use. "
            "Use --device auto."
        )
    if wanted == "cpu" and (cuda or mps):
        return Device(torch.device("cpu"), "CPU, as chosen (a GPU is there)")
    return Device(torch.device("cpu"), f"CPU: {_why_no_cuda()}")


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was installed without CUDA support"
    return "no NVIDIA GPU was found, or its driver does not fit this torch"


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """Half precision where it is faster.

    On CUDA that is bfloat16, and float16 with a scaled loss on cards that only emulate bfloat16,
    slowly or not for every layer (those before Ampere); on CPUs bfloat16 if a short trial says so.
    """
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if wanted in known:
        return known[wanted]
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has else torch.float16
    if device.type == "cpu" and bfloat16_pays():
        return torch.bfloat16
    return torch.float32


def bfloat16_pays(size: int = 16, channels: int = 16, repeats: int = 3) -> bool:
    """Time a small 3D convolution forth and back in both precisions.

    Processors with AMX are about three times as fast in bfloat16; those without emulate it, up to
    a hundred times slower, hence the small trial. One thread runs it: on a busy machine several
    wait for each other far longer than they compute, and chance would decide.
    """
    conv = nn.Conv3d(channels, channels, 3, padding=1)
    x = torch.zeros(1, channels, size, size, size, requires_grad=True)

    def seconds(enabled: bool) -> float:
        begin = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            y = conv(x)
        y.float().sum().backward()
        return time.perf_counter() - begin

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pairs = [(seconds(True), seconds(False)) for _ in range(repeats)]
    finally:
        torch.set_num_threads(threads)
    half, full = (min(times) for times in zip(*pairs, strict=True))
    return bool(half < 0.8 * full)


def sampling_device(device: torch.device) -> torch.device:
    """Where volumes are registered and deformed: where a run trains, but not on Apple's GPUs.

    Older versions of torch cannot differentiate sampling in three dimensions there.
    """
    return torch.device("cpu") if device.type == "mps" else device


@contextlib.contextmanager
def varying_shapes() -> Iterator[None]:
    """Keep CUDA from timing its convolutions: scans differ in size, and each would be timed."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch has an error of its own for it on GPUs only."""
    words = (
        "out of memory", "allocate memory", "not enough memory", "alloc_failed", "bad_alloc",
        "out_of_memory",
        "unable to find an engine", "valid cudnn algorithm",  # no room for what a layer works in
        "could not create a primitive",  # oneDNN does not say why
    )  # fmt: skip
    if isinstance(error, MemoryError) or any(word in str(error).lower() for word in words):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def tune_for_training(device: torch.device) -> None:
    """Let CUDA time its convolutions for the fixed shape of patches, and use TF32 for float32.

    TF32 keeps 10 of the 23 bits of a float32's mantissa in the products of convolutions and
    matrices, and all of them in the sums; cards since Ampere are several times as fast with it.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")


def free_memory(device: torch.device) -> None:
    """Give back what torch holds of a GPU's memory without using it."""
    gc.collect()  # what an error that was caught still refers to
    if device.type == "cuda":
        torch.cuda.empty_cache()


def keep_memory() -> None:
    """Let glibc keep freed memory instead of giving it back to the system after every step.

    A CPU step allocates and frees the same hundreds of megabytes again and again; without this the
    kernel clears them anew each time (measured: 5.2 s of system time against 1.4 s in ten steps).
    Elsewhere than on glibc nothing happens.
    """
    _tune_malloc(trim_threshold=2**31 - 1, top_pad=2**28, mmap_max=0)


def return_memory() -> None:
    """Undo ``keep_memory`` and give back what is free; where memory is short it fits more.

    Threads share one arena from then on: each of their own takes 64 MB of the address space.
    """
    _tune_malloc(trim_threshold=2**17, top_pad=2**17, mmap_max=2**16, arena_max=1)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _tune_malloc(
    trim_threshold: int, top_pad: int, mmap_max: int, arena_max: int | None = None
) -> None:
    """Set options of glibc by their numbers in ``malloc.h``."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((-1, trim_threshold), (-2, top_pad), (-4, mmap_max), (-8, arena_max)):
        if value is not None:
            mallopt(option, value)


@contextlib.contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Compute with one thread on a CPU, for work that consists of many small operations.

    Threads of an operation wait for each other at its end, and where other programs have the cores
    that takes far longer than the work: 8 to 11 s instead of 0.25 s for registering three pairs
    beside two busy processes on two cores.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
