"""The smallest floats are slow: gradients of rows long learned are such numbers, and cost many times as much."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def are_zero() -> bool:
    """Whether this thread takes numbers below the normal range of floats for zero."""
    return sys.float_info.min / 2 == 0


@contextmanager
def flushed_to_zero() -> Iterator[None]:
    """Take them for zero in the block, and then again as before: other code of this process may need them."""
    before = are_zero()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
