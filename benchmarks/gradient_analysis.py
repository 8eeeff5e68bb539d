"""Print gradients of each loss term during training, and how well embeddings separate classes.

``python benchmarks/gradient_analysis.py --data FOLDER --method dycon [--set fecl.focal_gamma=0.0]
[--steps 100]``

``FOLDER`` holds ``images/`` and ``labels/``; the first four cases by name are labeled, up to 56
others are unlabeled. Every 15 semi-supervised steps one line is printed: value and gradient norm of
each loss term in the backbone, its cosine with the gradient of the supervised loss, and mean
cosines between embeddings of labeled patches, within a structure (same) and between a structure and
the background (other). If both are near 1, the embeddings do not separate classes. Everything is in
a temporary folder.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from napari_dycon.engine.config import TrainConfig, make_config, parse_overrides
from napari_dycon.engine.losses.feature_grid import downsample_labels
from napari_dycon.engine.methods import build_method
from napari_dycon.engine.methods.base import Method, StepInputs
from napari_dycon.engine.network import flatten_spatial
from napari_dycon.engine.training import setup
from napari_dycon.engine.training.run import train
from napari_dycon.project.importing.create_project import create_project

LABELED, CASES, PRINT_INTERVAL_STEPS = 4, 60, 15


class GradientPrinter:
    """A method that prints the gradients of its loss terms in every few steps."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.count = 0

    def compute_loss_terms(self, step: StepInputs) -> dict[str, Tensor]:
        """Return the loss terms of the method, and print their gradients."""
        terms = self.method.compute_loss_terms(step)
        if self.count % PRINT_INTERVAL_STEPS == 0:
            print(
                f"{self.count:6d}  {_describe_gradients(step, terms)}  {_describe_cosines(step)}",
                flush=True,
            )
        self.count += 1
        return terms


def _describe_gradients(step: StepInputs, terms: dict[str, Tensor]) -> str:
    weights = list(step.student.backbone.parameters())
    flat = {}
    for name, term in terms.items():
        gradients = torch.autograd.grad(term.float(), weights, retain_graph=True, allow_unused=True)
        pairs = zip(gradients, weights, strict=True)
        flat[name] = torch.cat(
            [(torch.zeros_like(w) if g is None else g).float().flatten() for g, w in pairs]
        )
    descriptions = []
    for name, gradient in flat.items():
        cosine = torch.cosine_similarity(gradient, flat["supervised"], dim=0)
        value, norm = float(terms[name].detach()), float(gradient.norm())
        descriptions.append(f"{name} {value:.4f} (gradient {norm:.4f}, {float(cosine):+.2f})")
    return "; ".join(descriptions)


@torch.no_grad()
def _describe_cosines(step: StepInputs) -> str:
    labeled = step.batch.labeled
    embeddings = step.student.encode(labeled.image).float()
    depth, height, width = embeddings.shape[2:]
    classes = int(labeled.label[labeled.label < 255].max()) + 1
    groups = downsample_labels(labeled.label, max(classes, 2), (depth, height, width))
    same, other = [], []
    for z, group in zip(flatten_spatial(embeddings), groups, strict=True):
        cosine = z @ z.T
        for value in group[group > 0].unique():
            inside, outside = group == value, group == 0
            if int(inside.sum()) > 2 and bool(outside.any()):
                same.append(float(cosine[inside][:, inside].mean()))
                other.append(float(cosine[inside][:, outside].mean()))
    if not same:
        return "no structure in these patches"
    return f"same {np.mean(same):.2f}, other {np.mean(other):.2f}"


def main() -> None:
    """Train for some steps in a temporary project."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--method", default="dycon")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    settings = {
        "semi_supervised.start": 0.0,
        "atlas.max_registration_pairs": 0,
        **parse_overrides(arguments.set),
    }
    config = make_config(arguments.method, steps=arguments.steps, seed=0, device="cpu", **settings)
    names = sorted(path.name for path in (arguments.data / "images").glob("*.nii.gz"))[:CASES]
    if len(names) < LABELED:
        parser.error(f"{arguments.data} has {len(names)} scan(s) NAME.nii.gz in images/, too few")

    def build_printing_method(config: TrainConfig) -> Method:
        return GradientPrinter(build_method(config))

    with tempfile.TemporaryDirectory() as folder:
        for group, count in (("images", len(names)), ("labels", LABELED)):
            (Path(folder) / group).mkdir()
            for name in names[:count]:
                shutil.copyfile(arguments.data / group / name, Path(folder) / group / name)
        project = create_project(
            Path(folder) / "project", Path(folder) / "images", Path(folder) / "labels"
        )
        with mock.patch.object(setup, "build_method", build_printing_method):
            for _ in train(project, config):
                pass


if __name__ == "__main__":
    main()
