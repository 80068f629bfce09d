"""A pretend accelerator: tensors on `pretend:0` compute on the CPU, and refuse to mix with CPU tensors, as a GPU's do.

It is torch's Python backend for PrivateUse1. What it cannot do: autocast, and speed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("pretend")
DEVICE = torch.device("pretend", 0)
MOVES = ("aten::copy_", "aten::_to_copy")


class Pretend(torch.Tensor):
    """A tensor of the pretend device around its CPU tensor."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Pretend:
        tensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
            requires_grad=False,
        )
        tensor.inner = inner
        return tensor  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        """Numbers, copied to the CPU as a GPU's are; torch refuses this for subclasses."""
        return self.to("cpu").tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Pretend({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the inner tensors. RuntimeError for CPU tensors beside the device's, but for numbers."""
    flat = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    name, is_pretend = func._schema.name, any(isinstance(tensor, Pretend) for tensor in flat)
    if name not in MOVES and is_pretend and any(not isinstance(tensor, Pretend) and tensor.dim() for tensor in flat):
        raise RuntimeError(f"Expected all tensors to be on the same device, {name} got pretend:0 and cpu")
    device = kwargs.get("device")
    on_device = torch.device(device).type == "pretend" if device is not None else is_pretend
    args, kwargs = tree_map(lambda leaf: leaf.inner if isinstance(leaf, Pretend) else leaf, (args, kwargs))
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    out = func(*args, **kwargs)
    if name == "aten::_local_scalar_dense":
        return out
    if func._schema.is_mutable and name.endswith("_") and flat:
        return flat[0]
    return tree_map(lambda leaf: Pretend(leaf) if isinstance(leaf, torch.Tensor) and on_device else leaf, out)


def _fallback(op: Any, *args: Any, **kwargs: Any) -> Any:
    return _run(op, args, kwargs)


_every = torch.library.Library("_", "IMPL")
_every.fallback(_fallback, "PrivateUse1")
_aten = torch.library.Library("aten", "IMPL")
for _name, _op in (
    ("empty.memory_format", torch.ops.aten.empty.memory_format),
    ("empty_strided", torch.ops.aten.empty_strided.default),
    # Made of operations that resize their output, which a wrapper does not notice.
    ("arange", torch.ops.aten.arange.default),
    ("arange.start", torch.ops.aten.arange.start),
    ("arange.start_step", torch.ops.aten.arange.start_step),
):
    _aten.impl(_name, lambda *args, _op=_op, **kwargs: _run(_op, args, kwargs), "PrivateUse1")
