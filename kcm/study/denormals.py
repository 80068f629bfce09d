"""Denormal floats: gradients of rows learned long ago are so small, and arithmetic on them is many times slower."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def are_flushed() -> bool:
    """Whether this thread treats denormal floats as zero."""
    return sys.float_info.min / 2 == 0


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Treat denormal floats as zero in the block; the setting before it is restored."""
    before = are_flushed()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
