"""Logits of classes without training, from streamed means and covariance; networks add to these logits.

The sums behind the logits cover all rows so far, each row once. So the base is the same for any number of workers and
any order of rows within a task. No task can spoil what another has left, because the networks train only a residual.
Shapes: N rows, D features, C labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.closed_form.discriminant import linear_discriminant, nearest_mean
from kcm.collaborator.outputs import resized
from kcm.errors import DataError

BaseKind = Literal["none", "means", "lda"]

MEANS_SCALE = 20.0  # scales nearest-mean scores of unit vectors to logits: differences of about 0.1 are certain
SHRINKAGE = 0.01  # share of the identity mixed into the covariance, so that it can be inverted
UNSEEN = -1e4  # a logit that no softmax notices; not -inf, because 0 * inf in a divergence would be NaN


class ClassBase(nn.Module):
    """Logits [N, C] of unit feature vectors x by class means m_c; labels without rows get the logit UNSEEN.

        means   20 (x . m_c - |m_c|^2 / 2)
        lda     x . A m_c - m_c . A m_c / 2,  A the inverse of the pooled, shrunken covariance

    Nothing here has a gradient. The sums, float64, are part of the state, so that the next task can continue from them.
    """

    SUMS: ClassVar[tuple[str, ...]] = ("count_C", "sum_CD", "gram_DD")

    count_C: Tensor
    sum_CD: Tensor
    gram_DD: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self, in_features: int, num_labels: int, kind: Literal["means", "lda"], shrinkage: float = SHRINKAGE
    ) -> None:
        super().__init__()
        self.kind, self.shrinkage = kind, shrinkage
        gram_width = in_features if kind == "lda" else 0
        shapes = ((num_labels,), (num_labels, in_features), (gram_width, gram_width))
        for name, shape in zip(self.SUMS, shapes, strict=True):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(num_labels, in_features))
        self.register_buffer("bias", torch.full((num_labels,), UNSEEN))

    def forward(self, features_ND: Tensor) -> Tensor:
        """The logits of raw features, in their precision."""
        x_ND = F.normalize(features_ND, dim=-1)
        return F.linear(x_ND, self.weight.to(x_ND.dtype), self.bias.to(x_ND.dtype))

    def resize(self, num_labels: int) -> None:
        """Append labels without rows, or drop the last ones."""
        for name, fill in (("count_C", 0.0), ("sum_CD", 0.0), ("weight", 0.0), ("bias", UNSEEN)):
            setattr(self, name, resized(getattr(self, name), num_labels, fill))

    @torch.no_grad()
    def sums_of(self, rows: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """The sums of batches of features [n, D] and labels [n]; DataError for features that are not finite."""
        count_C, sum_CD, gram_DD = part = [torch.zeros_like(getattr(self, name)) for name in self.SUMS]
        for features_ND, labels_N in rows:
            x_ND = F.normalize(features_ND.double(), dim=-1)
            if not x_ND.isfinite().all():
                raise DataError("features contain NaN or infinity", hint="Compute the features again, or drop the rows")
            count_C.index_add_(0, labels_N, count_C.new_ones(len(labels_N)))
            sum_CD.index_add_(0, labels_N, x_ND)
            if self.kind == "lda":
                gram_DD.addmm_(x_ND.T, x_ND)
        return part

    @torch.no_grad()
    def add(self, part: Iterable[Tensor]) -> None:
        """Add the sums of other rows, and update the logits to all rows so far."""
        for name, addend in zip(self.SUMS, part, strict=True):
            getattr(self, name).add_(addend)
        if self.kind == "lda":
            weight_CD, bias_C = linear_discriminant(self.count_C, self.sum_CD, self.gram_DD, self.shrinkage)
            scale = 1.0
        else:
            (weight_CD, bias_C), scale = nearest_mean(self.count_C, self.sum_CD), MEANS_SCALE
        self.weight.copy_(scale * weight_CD)
        self.bias.copy_(torch.where(self.count_C > 0, scale * bias_C, UNSEEN))
