"""The random-units control: frozen below, trained on top, as large as the KAN that it stands beside."""

import pytest
import torch

from kcm.kan import KAN, RandomQuadratic, RandomReLU, num_parameters
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


def test_squares_are_clamped_projections_plus_inputs() -> None:
    network = RandomQuadratic(6, 24, 3)
    x = 3 * torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    parts = [2.0 * 0.5 * x, 0.5 * (x @ network.projection.T).clamp(-4, 4) ** 2, 0.5 * torch.full((50, 1), 24**0.5)]
    assert (x @ network.projection.T).abs().max() > 4
    torch.testing.assert_close(network(x), torch.cat(parts, 1) @ network.weight.T)


def test_squares_equal_a_one_interval_quadratic_kan() -> None:
    network = RandomQuadratic(6, 24, 3)
    kan = KAN([24, 3], grid_size=1, spline_order=2, grid_range=(-4, 4), base_activation="none").double()
    x = torch.randn(200, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    v = x @ network.projection.double().T
    assert v.abs().max() < 4
    answers = kan(v).detach()
    fitted = torch.linalg.lstsq(network.features(x), answers, driver="gelsd").solution
    torch.testing.assert_close(network.features(x) @ fitted, answers)
    assert num_parameters(network) == 3 * (24 + 6 + 1) < num_parameters(kan)


@pytest.mark.parametrize("kind", [RandomReLU, RandomQuadratic])
def test_the_offset_is_added_and_stored(kind) -> None:
    network, x = kind(6, 20, 3), torch.randn(4, 6)
    plain = network(x)
    network.offset.copy_(torch.tensor([1.0, -2.0, 0.5]))
    torch.testing.assert_close(network(x), plain + network.offset)
    state = network.state_dict()
    other = kind(6, 20, 3, seed=1)
    other.load_state_dict(state)
    assert torch.equal(other(x), network(x))


def directions(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return random_directions(count, dim, torch.Generator().manual_seed(seed))


def test_block_directions_are_orthonormal() -> None:
    """Promise: the directions of a block are orthonormal, and the last block may be short."""
    found = directions(20, 8)
    assert found.shape == (20, 8)
    for block in found.split(8):
        torch.testing.assert_close(block @ block.T, torch.eye(len(block)), atol=1e-5, rtol=0)


def test_directions_are_reproducible_and_spare_the_generator() -> None:
    first, second = (torch.Generator().manual_seed(3) for _ in range(2))
    found = random_directions(16, 8, first)
    expected = found.clone()
    found.zero_()
    assert torch.equal(random_directions(16, 8, second), expected)
    assert torch.equal(first.get_state(), second.get_state())
    assert not torch.equal(random_directions(16, 8, second), expected)


@pytest.mark.parametrize("kind", [RandomReLU, RandomQuadratic])
def test_output_is_linear_in_the_last_inputs(kind) -> None:
    """Promise: the last inputs add a linear map to the network that reads the others, and change no projection."""
    network, plain = kind(8, 24, 3, num_linear=2), kind(6, 24, 3)
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    without = torch.cat([x[:, :6], torch.zeros(50, 2)], 1)
    read = network.features(without)
    torch.testing.assert_close(read[:, read.abs().sum(0) > 0], plain.features(x[:, :6]))
    added = network(x) - network(without)
    solution = torch.linalg.lstsq(x[:, 6:], added).solution
    torch.testing.assert_close(x[:, 6:] @ solution, added, atol=1e-4, rtol=1e-4)
    assert added.abs().max() > 0.1
    assert network.widths == (8, 3)
    assert num_parameters(RandomReLU.matching(network)) == num_parameters(network)
