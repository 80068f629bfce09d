"""Scaling keeps features in the grid's range, once and for all, and survives features that never vary."""

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from kcm.collaborator.normalizer import FrozenNormalizer, Mixing, UnitNormalizer


def test_rows_get_unit_variance_whatever_their_length() -> None:
    rows = torch.randn(50, 384) * torch.logspace(-3, 3, 50)[:, None]
    scaled = UnitNormalizer()(rows)
    torch.testing.assert_close(scaled.square().mean(1), torch.ones(50))


def test_frozen_statistics_equal_scikit_learn() -> None:
    rows = torch.randn(1000, 6) * torch.tensor([1, 10, 0.1, 5, 1, 1]) + 3
    normalizer = FrozenNormalizer(6)
    normalizer.fit(rows.split(77))
    np.testing.assert_allclose(normalizer(rows), StandardScaler().fit_transform(rows.double()), atol=1e-4)


def test_constant_feature_is_centred_without_division() -> None:
    rows = torch.randn(100, 3)
    rows[:, 1] = 0.7
    normalizer = FrozenNormalizer(3)
    normalizer.fit([rows])
    scaled = normalizer(rows)
    assert torch.isfinite(scaled).all()
    assert scaled[:, 1].abs().max() < 1e-5


def test_sums_of_two_processes_give_the_statistics_of_all_rows() -> None:
    rows = torch.randn(1000, 6) + 3
    whole, second = FrozenNormalizer(6), FrozenNormalizer(6)
    whole.fit([rows])
    sums_of_first: list[torch.Tensor] = []
    FrozenNormalizer(6).fit([rows[:300]], add_up=sums_of_first.extend)

    def add_up(sums: list[torch.Tensor]) -> None:
        for ours, theirs in zip(sums, sums_of_first, strict=True):
            ours.add_(theirs)

    second.fit(rows[300:].split(77), add_up)
    torch.testing.assert_close(second.mean, whole.mean)
    torch.testing.assert_close(second.scale, whole.scale)


def test_every_row_comes_out_as_standard_normal_coordinates() -> None:
    skewed = torch.randn(4, 384, generator=torch.Generator().manual_seed(1)) + 2.0  # a mean that all rows share
    mixed = Mixing(384, 4000, seed=0)(UnitNormalizer()(skewed))
    torch.testing.assert_close(mixed.mean(1), torch.zeros(4), atol=0.06, rtol=0)
    torch.testing.assert_close(mixed.std(1), torch.ones(4), atol=0.05, rtol=0)
