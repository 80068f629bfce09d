"""Random directions are unit vectors, orthogonal as far as the space allows, and decided by the generator."""

from __future__ import annotations

import torch

from kcm.kan.directions import random_directions


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
