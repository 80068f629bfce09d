"""The processes that train together; alone, every operation is the identity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's place among `world_size` processes of torch.distributed."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """The default process group where one is initialised, else a single process."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Replace every tensor by its sum over ranks, in one message."""
        tensors = list(tensors)
        if self.world_size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in rank order, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[T | None] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return [received for received in values if received is not None]

    def share(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """This rank's slice of `positions` [N], padded to ceil(N / world_size), and its weights: 1, and 0 for padding.

        Equal lengths keep the ranks in step; zero weights keep the gradient that of the N rows alone.
        """
        length = -(-len(positions) // self.world_size)
        index = torch.arange(self.rank * length, (self.rank + 1) * length)
        weights = (index < len(positions)).to(torch.float32)
        return positions[index.clamp_max(len(positions) - 1)], weights
