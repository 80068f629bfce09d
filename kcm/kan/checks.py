"""What a KAN says about an input it cannot take."""

from __future__ import annotations

import torch
from torch import Tensor

from kcm.errors import DataError


def check_input(x: Tensor, row: torch.Size) -> None:
    """Raise DataError unless `x` is floating point and its last dimension is that of `row`."""
    if not x.is_floating_point():
        raise DataError(f"x holds {x.dtype}", mend="A KAN takes floating-point numbers: call x.float()")
    if x.shape[-1:] != row:
        raise DataError(f"x has shape {tuple(x.shape)}", mend=f"Its last dimension must be {row[0]}")
