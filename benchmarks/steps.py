"""What the benchmarks of networks time: an answer, a step of training, and the seconds of either."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def answer(module: nn.Module, x_NI: Tensor) -> Callable[[], None]:
    """One answer."""

    def run() -> None:
        with torch.inference_mode():
            module(x_NI)

    return run


def train_step(module: nn.Module, x_NI: Tensor, num_labels: int) -> Callable[[], None]:
    """One step of AdamW; the rate is tiny, so that the work stays the same."""
    labels_N = torch.arange(len(x_NI), device=x_NI.device) % num_labels
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-7, fused=True)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(module(x_NI), labels_N).backward()
        optimizer.step()

    return run


def seconds(run: Callable[[], object], repetitions: int) -> float:
    """Mean seconds of a call; a GPU has done what it was given."""
    _wait()
    started = time.perf_counter()
    for _ in range(repetitions):
        run()
    _wait()
    return (time.perf_counter() - started) / repetitions


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
