"""The processes that train together; alone, every operation is the identity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's rank among `world_size` processes of torch.distributed."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """The default process group if it is initialised, otherwise a single process."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Replace every tensor by its sum over ranks, in one message."""
        tensors = list(tensors)
        if self.world_size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        # Without NCCL, tensors of a GPU travel by the CPU.
        flat = flat if "nccl" in distributed.get_backend_config() else flat.cpu()
        distributed.all_reduce(flat)
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view(tensor.shape))
            start += tensor.numel()

    def gather(self, value: T, device: torch.device | str = "cpu") -> list[T]:
        """Every rank's value, in rank order, on every rank; what it holds on `device` travels by the CPU."""
        if self.world_size == 1:
            return [value]
        values: list[T | None] = [None] * self.world_size
        distributed.all_gather_object(values, on_device(value, "cpu"))
        return [on_device(received, device) for received in values if received is not None]

    def slices(self, count: int, size: int) -> Iterator[tuple[int, int, Tensor]]:
        """This rank's slice of 0..count-1, `size` at a time: start, end and weights, as `share` returns them.

        A padded slice has more weights than numbers. An empty slice contains the last number with weight 0.
        """
        length = -(-count // self.world_size)
        for first in range(self.rank * length, (self.rank + 1) * length, size):
            index = torch.arange(first, min(first + size, (self.rank + 1) * length))
            start = min(first, count - 1)
            yield start, max(start + 1, min(first + len(index), count)), (index < count).to(torch.float32)

    def share(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """This rank's slice of `positions` [N], padded to ceil(N / world_size), and its weights: 1, and 0 for padding.

        Equal lengths keep the ranks in step; weights of 0 leave the gradient equal to the gradient of the N rows alone.
        """
        length = -(-len(positions) // self.world_size)
        index = torch.arange(self.rank * length, (self.rank + 1) * length, device=positions.device)
        weights = (index < len(positions)).to(torch.float32)
        return positions[index.clamp_max(len(positions) - 1)], weights


def on_device(value: T, device: torch.device | str) -> T:
    """A value whose tensors, at any depth of its dicts, lists and tuples, are on a device; so are batches of rows."""
    moved: Any = value
    if hasattr(value, "to"):
        moved = value.to(device)
    elif isinstance(value, dict):
        moved = {key: on_device(part, device) for key, part in value.items()}
    elif isinstance(value, list | tuple):
        moved = type(value)(on_device(part, device) for part in value)
    return cast(T, moved)
