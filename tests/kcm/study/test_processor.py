"""A cell is computed by one thread, and with the smallest floats as zero; nothing else is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from kcm.study.processor import flushes_denormals, for_small_steps


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_the_smallest_floats_are_zero_in_the_block_alone() -> None:
    smallest = torch.tensor([1e-310], dtype=torch.float64)
    assert (smallest * 0.5).item() > 0
    with for_small_steps():
        assert flushes_denormals()
        assert (smallest * 0.5).item() == 0
    assert (smallest * 0.5).item() > 0


def test_torch_has_one_thread_in_the_block_alone() -> None:
    with for_small_steps():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_a_block_within_and_an_error_change_nothing_outside() -> None:
    with for_small_steps():
        with for_small_steps():
            pass
        assert flushes_denormals()
        assert torch.get_num_threads() == 1
    with pytest.raises(ZeroDivisionError), for_small_steps():
        1 / 0  # noqa: B018
    assert not flushes_denormals()
    assert torch.get_num_threads() == 3
