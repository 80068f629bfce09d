"""Mixing spreads what the unit normaliser gives over the grid, the same way on every machine."""

from __future__ import annotations

import pytest
import torch

from kcm.collaborator.normalizer import Mixing, UnitNormalizer


def test_every_row_comes_out_as_standard_normal_coordinates() -> None:
    skewed = torch.randn(4, 384, generator=torch.Generator().manual_seed(1)) + 2.0  # a mean that all rows share
    mixed = Mixing(384, 4000, seed=0)(UnitNormalizer()(skewed))
    torch.testing.assert_close(mixed.mean(1), torch.zeros(4), atol=0.06, rtol=0)
    torch.testing.assert_close(mixed.std(1), torch.ones(4), atol=0.05, rtol=0)


def test_the_seed_alone_decides_the_projections() -> None:
    assert torch.equal(Mixing(8, 5, seed=1).weight, Mixing(8, 5, seed=1).weight)
    assert not torch.equal(Mixing(8, 5, seed=1).weight, Mixing(8, 5, seed=2).weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_projection_keeps_the_precision_of_its_input(dtype) -> None:
    mixing, x = Mixing(8, 5, seed=1), torch.randn(3, 8, dtype=dtype)
    assert mixing(x).dtype == dtype
    torch.testing.assert_close(mixing(x), x @ mixing.weight.to(dtype).T)
