"""How the processor computes a cell: by one thread, and with denormal floats as zero.

Steps of a hundred rows are too small for threads, which wait for each other by spinning; on a busy machine they took
forty times the CPU seconds. Gradients of rows learned long ago are denormal, and arithmetic on those is many times
slower; the setting holds for one thread alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def flushes_denormals() -> bool:
    """Whether this thread treats denormal floats as zero."""
    return sys.float_info.min / 2 == 0


@contextmanager
def for_small_steps() -> Iterator[None]:
    """Let torch use this thread alone in the block, with denormal floats as zero; what was set before is restored."""
    num_threads, flushed = torch.get_num_threads(), flushes_denormals()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
        torch.set_num_threads(num_threads)
