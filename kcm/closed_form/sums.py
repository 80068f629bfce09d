"""Sums from which a ridge regression is solved; sums of parts add up to the sums of the whole.

Shapes: N rows, P inputs of the regression, K targets, M models that share the inputs, their targets side by side.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.linalg import blas, lapack
from torch import Tensor

from kcm.errors import DataError


class RidgeSums:
    """Row count n, G = sum phi phi^T, Q = sum phi y^T, t = sum y, and s = sum |y|^2 of every model, in float64.

    Their size depends on P and K alone: 8 (P^2 + P K) bytes, however many rows and tasks they have seen.
    """

    def __init__(self, num_inputs: int, num_targets: int, num_models: int) -> None:
        self.count = torch.zeros((), dtype=torch.float64)
        self.gram_PP = torch.zeros(num_inputs, num_inputs, dtype=torch.float64)  # the upper triangle alone is filled
        self.cross_PK = torch.zeros(num_inputs, num_targets, dtype=torch.float64)
        self.totals_K = torch.zeros(num_targets, dtype=torch.float64)
        self.squares_M = torch.zeros(num_models, dtype=torch.float64)

    def tensors(self) -> tuple[Tensor, ...]:
        """All sums; adding them up over parts gives those of the whole."""
        return self.count, self.gram_PP, self.cross_PK, self.totals_K, self.squares_M

    def add_rows(self, inputs_NP: Tensor, targets_NK: Tensor) -> None:
        """Add the sums of rows, both float64; DataError for inputs that are not finite."""
        if not len(inputs_NP):
            return
        if not inputs_NP.isfinite().all():
            raise DataError("features contain NaN or infinity", mend="Compute the features again, or drop the rows")
        # A symmetric product in place, half the work of a general one; transposing makes C's order Fortran's.
        blas.dsyrk(1.0, inputs_NP.numpy().T, beta=1.0, c=self.gram_PP.numpy().T, lower=1, overwrite_c=1)
        self.cross_PK.addmm_(inputs_NP.T, targets_NK)
        self.totals_K += targets_NK.sum(0)
        self.squares_M += targets_NK.square().sum(0).view(len(self.squares_M), -1).sum(1)
        self.count += len(inputs_NP)

    def add(self, other: RidgeSums) -> None:
        """Add the sums of other rows."""
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            mine += theirs

    def state_dict(self) -> dict[str, Any]:
        """The sums as tensors; of G the triangle alone."""
        packed, _ = lapack.dtrttp(self.gram_PP.numpy().T, uplo="L")
        return {
            "count": self.count,
            "gram": torch.from_numpy(packed),
            "cross": self.cross_PK,
            "totals": self.totals_K,
            "squares": self.squares_M,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RidgeSums:
        """Restore what `state_dict` gave."""
        num_inputs, num_targets = state["cross"].shape
        sums = cls(num_inputs, num_targets, len(state["squares"]))
        gram_PP, _ = lapack.dtpttr(num_inputs, state["gram"].numpy(), uplo="L")
        parts = (state["count"], torch.from_numpy(gram_PP.T), *(state[name] for name in ("cross", "totals", "squares")))
        for mine, theirs in zip(sums.tensors(), parts, strict=True):
            mine.copy_(theirs)
        return sums
