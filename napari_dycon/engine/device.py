"""Choice of device and precision, and settings of both."""

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


class DeviceChoice(NamedTuple):
    """The chosen device, and the reason to show to the user."""

    device: torch.device
    reason: str


def choose_device(requested: str) -> DeviceChoice:
    """Choose CUDA, then MPS, then the CPU; a requested device is used or raises an error."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if requested in ("auto", "cuda") and cuda:
        return DeviceChoice(torch.device("cuda"), f"GPU: {torch.cuda.get_device_name()}")
    if requested in ("auto", "mps") and mps:
        return DeviceChoice(torch.device("mps"), "GPU: Apple Metal")
    if requested == "cuda":
        raise ConfigError(
            f"Device cuda was requested, but {_cuda_unavailable_reason()}. Use --device auto."
        )
    if requested == "mps":
        raise ConfigError(
            "Device mps was requested, but this machine has no Apple GPU that torch can use. "
            "Use --device auto."
        )
    if requested == "cpu" and (cuda or mps):
        return DeviceChoice(torch.device("cpu"), "CPU, as chosen (a GPU is available)")
    return DeviceChoice(torch.device("cpu"), f"CPU: {_cuda_unavailable_reason()}")


def _cuda_unavailable_reason() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was installed without CUDA support"
    return "no NVIDIA GPU was found, or its driver is incompatible with this torch"


def choose_precision(requested: str, device: torch.device) -> torch.dtype:
    """Choose half precision where it is faster.

    On CUDA this is bfloat16, or float16 with a scaled loss on cards before Ampere, which emulate
    bfloat16 slowly or not for every layer. On CPUs it is bfloat16 if a benchmark at start-up shows
    that it is faster.
    """
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if requested in dtypes:
        return dtypes[requested]
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    if device.type == "cpu" and is_bfloat16_faster():
        return torch.bfloat16
    return torch.float32


def is_bfloat16_faster(size: int = 16, channels: int = 16, repeats: int = 3) -> bool:
    """Time the forward and backward pass of a small 3D convolution in both precisions.

    Processors with AMX are about three times as fast in bfloat16; those without emulate it, up to
    a hundred times slower, hence the small size. It runs in one thread, because on a busy machine
    threads wait for each other far longer than they compute, which would make the result random.
    """
    conv = nn.Conv3d(channels, channels, 3, padding=1)
    x = torch.zeros(1, channels, size, size, size, requires_grad=True)

    def measure_seconds(enabled: bool) -> float:
        begin = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            y = conv(x)
        y.float().sum().backward()
        return time.perf_counter() - begin

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        timings = [(measure_seconds(True), measure_seconds(False)) for _ in range(repeats)]
    finally:
        torch.set_num_threads(threads)
    bfloat16_s, float32_s = (min(times) for times in zip(*timings, strict=True))
    return bool(bfloat16_s < 0.8 * float32_s)


def choose_sampling_device(device: torch.device) -> torch.device:
    """Choose the device for registration: the training device, or the CPU instead of an Apple GPU.

    Older versions of torch cannot differentiate 3D sampling on Apple GPUs.
    """
    return torch.device("cpu") if device.type == "mps" else device


@contextlib.contextmanager
def disable_cudnn_benchmark() -> Iterator[None]:
    """Disable cuDNN's benchmark mode: scans differ in size, and each would be timed."""
    previous = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = previous


def is_out_of_memory(error: BaseException) -> bool:
    """Check whether memory ran out; torch has a dedicated error for this on GPUs only."""
    words = (
        "out of memory", "allocate memory", "not enough memory", "alloc_failed", "bad_alloc",
        "out_of_memory",
        "unable to find an engine", "valid cudnn algorithm",  # no workspace for a layer
        "could not create a primitive",  # oneDNN does not report the reason
    )  # fmt: skip
    if isinstance(error, MemoryError) or any(word in str(error).lower() for word in words):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def tune_for_training(device: torch.device) -> None:
    """Enable cuDNN's benchmark mode for the fixed shape of patches, and TF32 for float32.

    TF32 keeps 10 of the 23 mantissa bits in the products of convolutions and matrices, and all of
    them in the sums; cards since Ampere are several times as fast with it.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")


def empty_cache(device: torch.device) -> None:
    """Release unused GPU memory that torch has cached."""
    gc.collect()  # frees tensors that a caught error still refers to
    if device.type == "cuda":
        torch.cuda.empty_cache()


def tune_glibc_malloc() -> None:
    """Let glibc keep freed memory instead of returning it to the system after every step.

    A CPU step repeatedly allocates and frees the same hundreds of megabytes, which the kernel would
    clear each time (measured: 5.2 s of system time instead of 1.4 s in ten steps). Does nothing
    without glibc.
    """
    _set_malloc_options(trim_threshold=2**31 - 1, top_pad=2**28, mmap_max=0)


def reset_glibc_malloc() -> None:
    """Undo ``tune_glibc_malloc`` and release free memory, for when memory is short.

    Threads share one arena from then on, since each arena takes 64 MB of the address space.
    """
    _set_malloc_options(trim_threshold=2**17, top_pad=2**17, mmap_max=2**16, arena_max=1)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _set_malloc_options(
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
def use_single_thread(device: torch.device) -> Iterator[None]:
    """Compute with one thread on a CPU, for many small operations.

    Threads wait for each other at the end of each operation, which takes far longer than the
    computation if other programs use the cores: 8 to 11 s instead of 0.25 s for registering three
    pairs while two other processes were busy on two cores.
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
