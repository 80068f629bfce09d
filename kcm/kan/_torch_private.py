"""Every use of private parts of torch; a test of each fails when a new torch changes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Function = TypeVar("Function", bound=Callable[..., Any])

# The operators behind torch.nn.functional, without the Python around them: a tenth of a single row's answer.
hardsigmoid: Callable[[Tensor], Tensor] = torch._C._nn.hardsigmoid
silu: Callable[[Tensor], Tensor] = torch._C._nn.silu


def silu_into(x: Tensor, out: Tensor) -> Tensor:
    """`torch.nn.functional.silu`, which takes no `out`."""
    return torch._C._nn.silu(x, out=out)  # type: ignore[call-arg]


def softshrink_into(x: Tensor, offset: float, out: Tensor) -> Tensor:
    """`torch.nn.functional.softshrink`, which takes no `out`."""
    return torch._C._nn.softshrink(x, offset, out=out)  # type: ignore[call-arg]


def buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers of `module` itself, without the look-up by attribute, which costs a microsecond each."""
    return module._buffers  # type: ignore[return-value]


def functions_are_transformed() -> bool:
    """Whether the caller runs inside `torch.func.vmap`, `grad` or another transform."""
    return bool(torch._C._are_functorch_transforms_active())


def constant_to_compilers(function: Function) -> Function:
    """`torch.compiler.assume_constant_result`, without its import of the compiler: 1.5 s of every process."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
