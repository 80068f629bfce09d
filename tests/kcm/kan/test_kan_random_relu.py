"""The random-units control: frozen below, trained on top, as large as the KAN that it stands beside."""

from __future__ import annotations

import pytest
import torch

from kcm.errors import ConfigError
from kcm.kan import KAN, RandomReLU, num_parameters
from kcm.kan.random_relu import random_directions


def test_only_the_weights_on_top_are_trained() -> None:
    network = RandomReLU(6, 20, 3)
    assert [name for name, _ in network.named_parameters()] == ["weight"]
    x = torch.randn(4, 6)
    expected = (x @ network.projection.T).clamp_min(0) @ network.weight.T
    torch.testing.assert_close(network(x), expected)


def test_it_has_as_many_coefficients_as_the_kan() -> None:
    kan = KAN([6, 3], grid_size=4, spline_order=2)
    network = RandomReLU.matching(kan, seed=1)
    assert num_parameters(network) == num_parameters(kan) == 6 * 7 * 3
    assert network(torch.randn(2, 6)).shape == (2, 3)


def test_a_deeper_kan_has_no_such_match() -> None:
    with pytest.raises(ConfigError, match=r"widths = \[6, 4, 3\]"):
        RandomReLU.matching(KAN([6, 4, 3]))


def test_features_keep_the_precision_of_their_input() -> None:
    network = RandomReLU(6, 20, 3)
    assert network.features(torch.randn(2, 6, dtype=torch.float64)).dtype == torch.float64


def directions(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return random_directions(count, dim, torch.Generator().manual_seed(seed))


def test_directions_of_a_block_are_orthonormal_and_the_last_block_may_be_short() -> None:
    found = directions(20, 8)
    assert found.shape == (20, 8)
    for block in found.split(8):
        torch.testing.assert_close(block @ block.T, torch.eye(len(block)), atol=1e-5, rtol=0)


def test_blocks_differ_and_the_seed_decides() -> None:
    found = directions(16, 8)
    assert not torch.allclose(found[:8], found[8:])
    assert torch.equal(found, directions(16, 8))
    assert not torch.equal(found, directions(16, 8, seed=1))


def test_no_direction_of_space_is_preferred() -> None:
    mean = directions(4000, 4).mean(0)
    assert mean.norm() < 0.05
