"""Optimization steps: micro-batches, gradients, check for non-finite numbers, update.

A step is either taken as a whole or leaves networks and optimizer unchanged, which is decided on
the device by whether loss and gradients are finite. On CUDA the host does not wait for this: it
runs a few steps ahead and reads later which steps were skipped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.patches import Batch
from napari_dycon.engine.memory import split_batch
from napari_dycon.engine.methods.base import Method, StepInputs, compute_losses
from napari_dycon.engine.network import SegmentationNetwork, update_ema
from napari_dycon.engine.training.schedules import ema_decay

MAX_UNREAD_STEPS = 4  # steps that the host may be ahead of the device
MAX_LOSS_SCALE = 2.0**16
GROWTH_INTERVAL = 500  # finite steps after which the loss scale is doubled


class PartialUpdateError(RuntimeError):
    """An update of the weights failed part way; they must be restored from a checkpoint."""


@dataclass
class LossScale:
    """Factor of a float16 loss that keeps small gradients from becoming zero.

    Halved after a step whose gradients overflowed, doubled after many that did not. Both values
    stay on the device to avoid synchronization.
    """

    factor: Tensor
    finite_steps: Tensor

    @classmethod
    def create(cls, device: torch.device, factor: float = MAX_LOSS_SCALE) -> LossScale:
        """Return the initial scale of a run."""
        return cls(torch.tensor(factor, device=device), torch.zeros((), device=device))

    def update(self, is_finite: Tensor) -> None:
        """Adapt the factor to whether a step's gradients were finite."""
        steps = torch.where(is_finite, self.finite_steps + 1, torch.zeros_like(self.finite_steps))
        grows = steps >= GROWTH_INTERVAL
        grown = torch.where(grows, self.factor * 2, self.factor)
        self.factor = torch.where(is_finite, grown, self.factor / 2).clamp(1.0, MAX_LOSS_SCALE)
        self.finite_steps = torch.where(grows, torch.zeros_like(steps), steps)

    def to_json(self) -> list[float]:
        """Return the values stored in a checkpoint."""
        return [float(self.factor), float(self.finite_steps)]

    @classmethod
    def from_json(cls, values: object, device: torch.device) -> LossScale:
        """Return the scale of a checkpoint, or the initial one if that has none."""
        scale = cls.create(device)
        if isinstance(values, list) and len(values) == 2:
            numbers = [float(v) for v in values if isinstance(v, (int, float))]
            if len(numbers) == 2 and 1.0 <= numbers[0] <= MAX_LOSS_SCALE:
                scale = cls.create(device, numbers[0])
                scale.finite_steps += min(max(numbers[1], 0.0), float(GROWTH_INTERVAL))
        return scale


class Stepper:
    """Optimization of a student and its teacher, step by step.

    Parameters
    ----------
    student, teacher, optimizer : updated in place
    device, dtype : where and in which precision losses are computed
    is_deferred : whether the device decides if a step is skipped, without the host waiting for it;
        requires a fused optimizer; by default on CUDA
    """

    def __init__(
        self,
        student: SegmentationNetwork,
        teacher: SegmentationNetwork,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        dtype: torch.dtype,
        *,
        is_deferred: bool | None = None,
    ) -> None:
        self.student, self.teacher, self.optimizer = student, teacher, optimizer
        self.device, self.dtype = device, dtype
        self.is_deferred = device.type == "cuda" if is_deferred is None else is_deferred
        self.loss_scale = LossScale.create(device) if dtype == torch.float16 else None
        self._noise_generator = torch.Generator(device)
        self._unread_flags: deque[tuple[int, Callable[[bool], bool | None]]] = deque()

    def restore_loss_scale(self, values: object) -> None:
        """Continue with the loss scale of a checkpoint, in float16."""
        if self.loss_scale is not None:
            self.loss_scale = LossScale.from_json(values, self.device)

    def step(
        self,
        step_index: int,
        config: TrainConfig,
        method: Method,
        batch: Batch,
        unlabeled_progress: float,
        learning_rate: float,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Take step number ``step_index`` (from 0); returns the loss terms and their sum.

        An error leaves networks and optimizer unchanged.

        Raises
        ------
        PartialUpdateError
            The update itself failed part way.
        """
        buffers = _BufferSnapshot(self.student, self.teacher)
        try:
            loss_terms, loss = self._backward(step_index, config, method, batch, unlabeled_progress)
            is_finite, is_valid = self._unscale_and_clip(loss, config.optimizer.grad_clip_norm)
        except BaseException:
            buffers.restore()
            self.optimizer.zero_grad(set_to_none=True)
            raise
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        decay = ema_decay(step_index, config.semi_supervised.ema_decay)
        try:
            if self.is_deferred:
                self._update_on_device(is_finite, decay)
                buffers.restore(keep_current=is_finite)
            elif bool(is_finite):
                self.optimizer.step()
                update_ema(self.teacher, self.student, decay)
            else:
                buffers.restore()
        except (RuntimeError, MemoryError) as error:
            raise PartialUpdateError("weights were only updated in part") from error
        finally:
            self.optimizer.zero_grad(set_to_none=True)
        self._unread_flags.append((step_index, _build_flag_reader(is_valid)))
        return loss_terms, loss

    def dry_run(self, config: TrainConfig, method: Method, batch: Batch) -> None:
        """Compute a step and discard it, to find out whether memory suffices."""
        buffers = _BufferSnapshot(self.student, self.teacher)  # running means of a batch norm
        try:
            self._backward(0, config, method, batch, 1.0)
        finally:
            buffers.restore()
            self.optimizer.zero_grad(set_to_none=True)

    def read_step_outcomes(self, *, wait: bool = False) -> list[tuple[int, bool]]:
        """Return the steps whose outcome is known, and whether each was taken (true) or skipped.

        Each step is returned once. With ``wait`` all steps are returned.
        """
        outcomes = []
        while self._unread_flags:
            step, read = self._unread_flags[0]
            finite = read(
                wait or not self.is_deferred or len(self._unread_flags) > MAX_UNREAD_STEPS
            )
            if finite is None:
                break
            outcomes.append((step, finite))
            self._unread_flags.popleft()
        return outcomes

    def _backward(
        self,
        step_index: int,
        config: TrainConfig,
        method: Method,
        batch: Batch,
        unlabeled_progress: float,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Compute the gradients of a batch in micro-batches of equal size."""
        self.optimizer.zero_grad(set_to_none=True)
        self.student.activation_checkpointing = config.batch.activation_checkpointing
        self._noise_generator.manual_seed(config.seed * 1_000_003 + step_index)
        micro_batches = split_batch(batch, config.batch.accumulation_steps)
        fraction = 1.0 / len(micro_batches)
        total_terms: dict[str, Tensor] = {}
        total_loss = torch.zeros((), device=self.device)
        for micro in micro_batches:
            inputs = StepInputs(
                self.student, self.teacher, micro, unlabeled_progress, self._noise_generator
            )
            loss_terms, loss = compute_losses(method, inputs, self.device, self.dtype)
            scaled = loss if len(micro_batches) == 1 else loss * fraction
            scaled = scaled if self.loss_scale is None else scaled * self.loss_scale.factor
            scaled.backward()  # type: ignore[no-untyped-call]
            for name, term in loss_terms.items():
                total_terms[name] = total_terms.get(name, 0.0) + term.detach() * fraction
            total_loss = total_loss + loss.detach() * fraction
            del loss_terms, loss, scaled, inputs  # before the next micro-batch allocates as much
        return total_terms, total_loss

    def _unscale_and_clip(self, loss: Tensor, max_norm: float) -> tuple[Tensor, Tensor]:
        """Unscale and clip; return whether the step can be taken, and whether it is not a failure.

        A float16 step that overflowed is skipped and the loss scale reduced; it is no failure as
        long as its loss is finite and the scale can be reduced.
        """
        scale = self.loss_scale
        gradients = [p.grad for p in self.student.parameters() if p.grad is not None]
        if scale is not None:
            torch._foreach_mul_(gradients, 1.0 / scale.factor)
        norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), max_norm)
        is_finite = torch.isfinite(loss) & torch.isfinite(norm)
        if scale is None:
            return is_finite, is_finite
        is_valid = torch.isfinite(loss) & (torch.isfinite(norm) | (scale.factor > 1.0))
        scale.update(is_finite)
        return is_finite, is_valid

    def _update_on_device(self, is_finite: Tensor, decay: float) -> None:
        """Update student and teacher if ``is_finite`` is true, decided on the device."""
        # The interface by which gradient scalers report overflows to fused optimizers.
        self.optimizer.grad_scale = None  # type: ignore[attr-defined]
        self.optimizer.found_inf = 1.0 - is_finite.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        with torch.no_grad():
            teacher_params: list[Tensor] = list(self.teacher.parameters())
            student_params: list[Tensor] = list(self.student.parameters())
            change = torch._foreach_sub(student_params, teacher_params)
            torch._foreach_mul_(change, is_finite.float() * (1.0 - decay))
            torch._foreach_add_(teacher_params, change)
            for teacher_buffer, student_buffer in zip(
                self.teacher.buffers(), self.student.buffers(), strict=True
            ):
                teacher_buffer.copy_(student_buffer)


class _BufferSnapshot:
    """Copy of the buffers of networks (running statistics of a batch norm)."""

    def __init__(self, *networks: torch.nn.Module) -> None:
        self._saved = [(b, b.clone()) for network in networks for b in network.buffers()]

    @torch.no_grad()
    def restore(self, keep_current: Tensor | None = None) -> None:
        """Restore the buffers except where ``keep_current``, a tensor on the device, is true."""
        for buffer, before in self._saved:
            buffer.copy_(
                before if keep_current is None else torch.where(keep_current, buffer, before)
            )


def _build_flag_reader(flag: Tensor) -> Callable[[bool], bool | None]:
    """Return a function that reads a flag, or ``None`` if it would have to wait."""
    if flag.device.type != "cuda":
        return lambda _: bool(flag)
    host = torch.empty((), dtype=torch.bool, pin_memory=True)
    host.copy_(flag, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def read(wait: bool) -> bool | None:
        if wait:
            copied.synchronize()
        return bool(host) if copied.query() else None  # type: ignore[no-untyped-call]

    return read
