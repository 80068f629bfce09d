"""The smallest floats are zero where a study runs, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from kcm.study import denormals


def test_the_smallest_floats_are_zero_in_the_block_alone() -> None:
    smallest = torch.tensor([1e-310], dtype=torch.float64)
    assert (smallest * 0.5).item() > 0
    with denormals.flush_denormals():
        assert denormals.are_flushed()
        assert (smallest * 0.5).item() == 0
    assert (smallest * 0.5).item() > 0


def test_a_block_within_and_an_error_change_nothing_outside() -> None:
    with denormals.flush_denormals():
        with denormals.flush_denormals():
            pass
        assert denormals.are_flushed()
    with pytest.raises(ZeroDivisionError), denormals.flush_denormals():
        1 / 0  # noqa: B018
    assert not denormals.are_flushed()
