"""Plain implementation of the training step and the prediction, to which ``speed.py`` compares.

The same network, losses and optimizer as in the package, with the same parameters, in a
straightforward implementation: tensors in the default memory layout of torch (contiguous ``NCDHW``)
and in float32, MONAI's blocks called one after the other, student and then teacher, losses from
dense matrices and one-hot labels, parameters updated in a loop.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from napari_dycon.engine.config import TrainConfig
from napari_dycon.engine.data.patches import Batch
from napari_dycon.engine.network import MIN_EMBEDDING_NORM, ProjectionHead, SegmentationNetwork

UNANNOTATED = 255
PUBLISHED_WINDOW, PUBLISHED_STRIDE = (112, 112, 80), (18, 18, 4)


class PlainStepper:
    """DyCON or supervised steps with a copy of a network.

    Parameters
    ----------
    network : initial parameters; the network is copied
    config : loss weights and optimizer settings; schedules have their final values
    """

    def __init__(self, network: SegmentationNetwork, config: TrainConfig) -> None:
        self.config = config
        self.student = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.student.parameters(),
            lr=config.optimizer.learning_rate,
            weight_decay=config.optimizer.weight_decay,
            foreach=False,
        )

    def step(self, batch: Batch, noise: Tensor | None) -> float:
        """Take one step and return the loss."""
        c = self.config
        self.optimizer.zero_grad()
        loss = self.supervised(batch) if noise is None else self.dycon(batch, noise)
        loss.backward()
        nn.utils.clip_grad_norm_(
            self.student.parameters(), c.optimizer.grad_clip_norm, foreach=False
        )
        self.optimizer.step()
        with torch.no_grad():
            for teacher, student in zip(
                self.teacher.parameters(), self.student.parameters(), strict=True
            ):
                teacher.mul_(c.semi_supervised.ema_decay).add_(
                    student, alpha=1 - c.semi_supervised.ema_decay
                )
        return loss.item()

    def supervised(self, batch: Batch) -> Tensor:
        """Return the loss of the labeled half."""
        logits, _ = forward(self.student, batch.labeled.image)
        return cross_entropy_and_dice(logits, batch.labeled.label)

    def dycon(self, batch: Batch, noise: Tensor) -> Tensor:
        """Return the loss of a batch; ``noise`` is added to the input of the teacher."""
        c = self.config
        assert batch.unlabeled is not None
        count = len(batch.labeled.image)
        image = torch.cat([batch.labeled.image, batch.unlabeled.image])
        logits, bottleneck = forward(self.student, image)
        embeddings = project(self.student.projection, bottleneck)
        with torch.no_grad():
            teacher_logits, bottleneck = forward(self.teacher, image + noise)
            teacher_embeddings = project(self.teacher.projection, bottleneck)
        supervised = cross_entropy_and_dice(logits[:count], batch.labeled.label)
        consistency = F.mse_loss(logits[count:].softmax(1), teacher_logits[count:].softmax(1))
        depth, height, width = embeddings.shape[2:]
        grid = depth, height, width
        classes = logits.shape[1]
        with torch.no_grad():
            labels = torch.cat(
                [
                    label_grid(batch.labeled.label, classes, grid),
                    pseudo_label_grid(
                        teacher_logits[count:], grid, c.semi_supervised.pseudo_label_threshold
                    ),
                ]
            )
            h = entropy(logits)[:, None] / torch.tensor(float(classes)).log()
            h = F.adaptive_avg_pool3d(h, grid).flatten(1)
        patches = zip(embeddings, teacher_embeddings, labels, h, strict=True)
        sums = [fecl(z.flatten(1).T, t.flatten(1).T, y, weight, c) for z, t, y, weight in patches]
        contrast, anchors, repulsion, pairs = (sum(part) for part in zip(*sums, strict=True))
        contrast = contrast / max(int(anchors), 1)
        contrast = contrast + c.fecl.teacher_weight * repulsion / max(int(pairs), 1)
        u = c.semi_supervised.weight
        return (
            supervised
            + u
            * c.uncl.weight
            * uncl(logits, teacher_logits, c.uncl.beta_min, c.uncl.entropy_weight)
            + u * c.fecl.weight * contrast
            + c.semi_supervised.consistency_weight * consistency
        )


def forward(network: SegmentationNetwork, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits and bottleneck features of a network at full resolution, computed by MONAI."""
    net = network.backbone
    skips = [net.input_block(image)]
    for block in net.downsamples:
        skips.append(block(skips[-1]))
    features = bottleneck = net.bottleneck(skips[-1])
    for block, skip in zip(net.upsamples, reversed(skips), strict=True):
        features = block(features, skip)
    return net.output_block(features), bottleneck


def project(head: ProjectionHead, features: Tensor) -> Tensor:
    """Return embeddings of bottleneck features."""
    features = head.aspp(features)
    features = F.interpolate(features, scale_factor=2, mode="trilinear")
    return F.normalize(head.spread(head.layers(features)), dim=1, eps=MIN_EMBEDDING_NORM)


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of each voxel in nats, ``(B, D, H, W)``."""
    p = logits.softmax(1)
    return -(p * logits.log_softmax(1)).sum(1)


def cross_entropy_and_dice(logits: Tensor, label: Tensor) -> Tensor:
    """Return cross-entropy plus the mean Dice loss of the foreground classes that occur."""
    annotated = label != UNANNOTATED
    target = F.one_hot(label * annotated, logits.shape[1]).movedim(-1, 1) * annotated[:, None]
    p = logits.softmax(1) * annotated[:, None]
    overlap, size = (p * target).sum((0, 2, 3, 4)), target.sum((0, 2, 3, 4))
    dice = 1 - (2 * overlap + 1e-5) / (p.sum((0, 2, 3, 4)) + size + 1e-5)
    present = size[1:] > 0
    mean = (dice[1:] * present).sum() / present.sum().clamp(min=1)
    return F.cross_entropy(logits, label, ignore_index=UNANNOTATED) + mean


def uncl(logits: Tensor, teacher_logits: Tensor, beta: float, weight: float) -> Tensor:
    """Return the uncertainty-aware consistency loss, Eq. 1 of DyCON."""
    h_s, h_t = entropy(logits), entropy(teacher_logits)
    distance = (logits.softmax(1) - teacher_logits.softmax(1)).square().sum(1)
    weighted = distance / ((beta * h_s).exp() + (beta * h_t).exp())
    return (weighted + weight * beta * (h_s + h_t)).mean()


def label_grid(label: Tensor, classes: int, grid: tuple[int, int, int]) -> Tensor:
    """Return the most frequent class of each location, ``(B, N)``; -1 if hardly annotated."""
    annotated = label != UNANNOTATED
    one_hot = F.one_hot(label * annotated, classes).movedim(-1, 1) * annotated[:, None]
    fraction = F.adaptive_avg_pool3d(one_hot.float(), grid)
    return fraction.argmax(1).masked_fill(fraction.sum(1) < 0.1, -1).flatten(1)


def pseudo_label_grid(logits: Tensor, grid: tuple[int, int, int], confidence: float) -> Tensor:
    """Return the predicted class of each location, ``(B, N)``; -1 if not confident."""
    p = logits.softmax(1)
    best, label = p.max(1)
    y = label_grid(label, p.shape[1], grid)
    return y.masked_fill(F.adaptive_avg_pool3d(best[:, None], grid).flatten(1) < confidence, -1)


def fecl(
    z: Tensor, z_teacher: Tensor, y: Tensor, h: Tensor, c: TrainConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the focal entropy-aware contrastive loss of one patch from dense matrices (Eqs. 3-6).

    Returns the sum over anchors and their number, and the sum over pairs with the teacher and their
    number.
    """
    s = (z @ z.T) / c.fecl.temperature
    known = y >= 0
    same = (y[:, None] == y[None]) & known[:, None] & known[None]
    positive = same & ~torch.eye(len(y), dtype=torch.bool)
    negative = (y[:, None] != y[None]) & known[:, None] & known[None]
    e = s.exp()
    total = (e * negative).sum(1, keepdim=True)
    probability = e / (e + total)
    focus = ((1 - probability) ** c.fecl.focal_gamma) * h.exp()[:, None]
    count = positive.sum(1)
    anchor = (-focus * probability.log() * positive).sum(1) / count.clamp(min=1)
    s_t = z @ z_teacher.T
    pair = negative & (s_t > 0.5)
    far = -(1 - s_t).clamp(min=1e-4).log()
    return anchor.sum(), (count > 0).sum(), (far * pair).sum(), pair.sum()


@torch.no_grad()
def predict(network: SegmentationNetwork, image: Tensor) -> Tensor:
    """Return the softmax output ``(C, D, H, W)`` with the published sliding window."""
    overlap = [1 - s / n for s, n in zip(PUBLISHED_STRIDE, PUBLISHED_WINDOW, strict=True)]
    output = sliding_window_inference(
        image[None],
        roi_size=PUBLISHED_WINDOW,
        sw_batch_size=1,
        predictor=lambda x: forward(network, x)[0].softmax(1),
        overlap=overlap,
    )
    assert isinstance(output, Tensor)
    return output[0]
