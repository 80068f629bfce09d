"""The smallest floats are zero where a study runs, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from kcm.study import denormals


def test_the_smallest_floats_are_zero_in_the_block_alone() -> None:
    smallest = torch.tensor([1e-310], dtype=torch.float64)
    assert (smallest * 0.5).item() > 0
    with denormals.flushed_to_zero():
        assert denormals.are_zero()
        assert (smallest * 0.5).item() == 0
    assert (smallest * 0.5).item() > 0


def test_a_block_within_and_an_error_change_nothing_outside() -> None:
    with denormals.flushed_to_zero():
        with denormals.flushed_to_zero():
            pass
        assert denormals.are_zero()
    with pytest.raises(ZeroDivisionError), denormals.flushed_to_zero():
        1 / 0  # noqa: B018
    assert not denormals.are_zero()
