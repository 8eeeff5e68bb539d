"""SECL and the groups of its locations against slow references."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from napari_dycon.engine.losses.feature_grid import region_indices
from napari_dycon.engine.losses.secl import secl


def compute_secl_reference(
    z: torch.Tensor, z_t: torch.Tensor, groups: torch.Tensor, tau: float
) -> torch.Tensor:
    z, z_t, y = z.flatten(0, 1), z_t.flatten(0, 1).detach(), groups.flatten().tolist()
    anchors = []
    for i, own in enumerate(y):
        if own < 0:
            continue
        positives = [k for k, other in enumerate(y) if other == own]
        negatives = [q for q, other in enumerate(y) if other >= 0 and other != own]
        mean = torch.stack([torch.exp(z[i] @ z_t[k] / tau) for k in positives]).mean()
        rest = sum((torch.exp(z[i] @ z_t[q] / tau) for q in negatives), torch.zeros(()))
        anchors.append(-torch.log(mean / (mean + rest)))
    return torch.stack(anchors).mean()


def make_locations(seed: int, n: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    z, z_t = (
        F.normalize(torch.randn(2, n, 5, generator=g, dtype=torch.float64), dim=2) for _ in "ab"
    )
    return z, z_t, torch.randint(-1, 3, (2, n), generator=g)


@pytest.mark.parametrize("tau", [0.1, 0.6])
@pytest.mark.parametrize("budget", [2**24, 40])
def test_secl_equals_its_formula_with_and_without_chunks(tau: float, budget: int) -> None:
    z, z_t, groups = make_locations(2)
    mine, slow = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss = secl(mine, z_t, groups, temperature=tau, pair_budget=budget)
    expected = compute_secl_reference(slow, z_t, groups, tau)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, slow.grad)


def test_the_gradient_of_secl_is_correct() -> None:
    z, z_t, groups = make_locations(3, n=4)
    assert torch.autograd.gradcheck(lambda x: secl(x, z_t, groups), z.requires_grad_())


def test_secl_is_zero_or_finite_in_edge_cases() -> None:
    z, z_t, groups = make_locations(4)
    z = z.float().requires_grad_()
    teacher = z_t.float().requires_grad_()
    # Nothing to compare: an exact zero with a gradient path.
    for none in (torch.full_like(groups, -1), torch.zeros_like(groups)):
        loss = secl(z, teacher, none)
        assert float(loss.detach()) == 0.0
        loss.backward()
        assert torch.equal(z.grad, torch.zeros_like(z))
    assert teacher.grad is None
    # Half precision, cosines above one by rounding, a tiny temperature.
    same = torch.ones(1, 4, 1, dtype=torch.bfloat16) * 1.01
    assert torch.isfinite(secl(same, same, torch.tensor([[0, 0, 1, 1]]), temperature=0.01))
    with pytest.raises(ValueError, match=r"groups \(2, 3\) must be \(2, 9\)"):
        secl(z, teacher, groups[:, :3])


def test_ignored_locations_change_nothing() -> None:
    z, z_t, groups = make_locations(5)
    groups[:, 2] = -1
    other = z_t.clone()
    other[:, 2] = 7.0
    assert torch.equal(secl(z, z_t, groups), secl(z, other, groups))


def test_regions_are_positions_in_the_volume() -> None:
    position = torch.tensor([[0.25, 0.5, 0.5], [0.75, 0.5, 0.5]])
    extent = torch.tensor([[0.5, 1.0, 1.0]] * 2)
    found = region_indices(position, extent, (2, 2, 1), (4, 2, 1)).view(2, 2, 2, 1)
    # The lower half holds the regions 0 and 1 along the first axis, the upper half 2 and 3.
    assert found[:, :, 0, 0].tolist() == [[0, 2], [4, 6]]
    assert found[:, :, 1, 0].tolist() == [[1, 3], [5, 7]]
    # A patch larger than its volume: what sticks out belongs nowhere.
    wide = region_indices(torch.full((1, 3), 0.5), torch.full((1, 3), 2.0), (4, 1, 1), (8, 8, 1))
    assert wide.tolist() == [[-1, 2 * 8 + 4, 6 * 8 + 4, -1]]
