"""Sums from which a ridge regression is solved; sums of parts add up to the sums of the whole.

Shapes: N rows, P inputs of the regression, K targets, M models that share the inputs, their targets side by side.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.linalg import blas, lapack
from torch import Tensor
from torch.nn import functional as F

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

    @property
    def mean_eigenvalue(self) -> float:
        """tr(G) / P, in units of which strengths are given."""
        return float(self.gram_PP.diagonal().sum()) / len(self.gram_PP)

    def tensors(self) -> tuple[Tensor, ...]:
        """All sums; the sums of the whole are the totals over its parts."""
        return self.count, self.gram_PP, self.cross_PK, self.totals_K, self.squares_M

    def add_rows(self, inputs_NP: Tensor, targets_NK: Tensor) -> None:
        """Add the sums of rows, both float64; DataError for inputs that are not finite."""
        if not len(inputs_NP):
            return
        if not inputs_NP.isfinite().all():
            raise DataError("features contain NaN or infinity", hint="Compute the features again, or drop the rows")
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

    def plus(self, other: RidgeSums, weight: float) -> RidgeSums:
        """The sums of these rows, and of others that count for `weight` each; both stay as they are."""
        sums = RidgeSums(len(self.gram_PP), len(self.totals_K), len(self.squares_M))
        for mine, ours, theirs in zip(sums.tensors(), self.tensors(), other.tensors(), strict=True):
            torch.add(ours, theirs, alpha=weight, out=mine)
        return sums

    def grown(self, num_labels: int) -> RidgeSums:
        """The sums of the same rows where every model has targets for more labels, all 0."""
        num_models = len(self.squares_M)
        sums = RidgeSums(0, num_models * num_labels, num_models)
        sums.count, sums.gram_PP, sums.squares_M = self.count, self.gram_PP, self.squares_M
        missing = num_labels - len(self.totals_K) // num_models
        sums.cross_PK, sums.totals_K = (
            F.pad(targets.unflatten(-1, (num_models, -1)), (0, missing)).flatten(-2)  # type: ignore[no-untyped-call]
            for targets in (self.cross_PK, self.totals_K)
        )
        return sums

    def every_second(self) -> RidgeSums:
        """The sums over the same rows of every second input."""
        sums = RidgeSums(0, len(self.totals_K), len(self.squares_M))
        sums.count, sums.totals_K, sums.squares_M = self.count, self.totals_K, self.squares_M
        sums.gram_PP, sums.cross_PK = self.gram_PP[::2, ::2].contiguous(), self.cross_PK[::2].contiguous()
        return sums

    def balanced(self, share: float) -> RidgeSums:
        """The sums of as many rows, had class c not n_c of them but a number that goes with n_c^(1 - share).

        Its rows then lie about its mean m_c as those of all classes do: G + sum_c (n'_c - n_c) m_c m_c^T. The first
        model's targets must be labels, all of one size; those of other models are taken to go with them.
        """
        labels_C = self.totals_K.chunk(len(self.squares_M))[0]
        seen_C = labels_C > 0
        count_C = self.count * labels_C / labels_C.sum()
        wanted_C = torch.where(seen_C, count_C ** (1 - share), 0)
        wanted_C = wanted_C * (self.count / wanted_C.sum())
        mean_PC = self.cross_PK[:, : len(labels_C)] / torch.where(seen_C, labels_C, 1)
        ratio_K = torch.where(seen_C, wanted_C / torch.where(seen_C, count_C, 1), 1).repeat(len(self.squares_M))
        sums = RidgeSums(len(self.gram_PP), len(self.totals_K), len(self.squares_M))
        changed_PP = torch.addmm(self.gram_PP, mean_PC * (wanted_C - count_C), mean_PC.T).triu_()
        parts = (self.count, changed_PP, self.cross_PK * ratio_K, self.totals_K * ratio_K, self.squares_M)
        for mine, theirs in zip(sums.tensors(), parts, strict=True):
            mine.copy_(theirs)
        return sums

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
