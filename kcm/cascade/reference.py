"""What the small side remembers of the rows it learned: class means, covariance within classes, remembered rows.

A gate uses it to measure how far a row is from what is known. All vectors have unit length, as the base of the networks
sees them. Shapes: N rows, D features, C labels, R remembered rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from kcm.closed_form.discriminant import class_means, pooled_covariance
from kcm.collaborator.collaborator import Collaborator

MAX_REMEMBERED = 1000  # remembered rows that a gate searches for neighbours; more would cost what it saves
NEIGHBOURS = 5
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Reference:
    """Tensors; a tensor is empty if it is not known.

    `mean_CK`, float64, are class means in coordinates x @ whiten_DK, in which Euclidean distance is the Mahalanobis
    distance of the pooled covariance. If the covariance is not known, `whiten_DK` is empty and K = D. `seen_C` (bool)
    marks the labels with rows. `remembered_RD`, float32, are rows of the memory, and `label_R` (int64) their labels.
    """

    mean_CK: Tensor
    seen_C: Tensor
    whiten_DK: Tensor
    remembered_RD: Tensor
    label_R: Tensor

    @classmethod
    def nothing(cls) -> Reference:
        """The reference of a side that remembers nothing."""
        empty = torch.zeros(0, 0)
        return cls(empty, torch.zeros(0, dtype=torch.bool), empty, empty, torch.zeros(0, dtype=torch.int64))

    @classmethod
    def of(cls, collaborator: Collaborator, learner_state: Mapping[str, Any]) -> Reference:
        """From the sums of the base, if there is one; if not, from the rows in the memory, if any."""
        memory = learner_state.get("memory") or {}
        empty = cls.nothing()
        remembered_RD, label_R = empty.remembered_RD, empty.label_R
        if memory.get("ids"):
            remembered_RD = F.normalize(memory["features"].float(), dim=-1)
            label_R = memory["labels"]
        base = collaborator.base
        if base is not None:
            count_C, sum_CD = base.count_C, base.sum_CD
        elif len(label_R):
            one_hot_RC = F.one_hot(label_R, collaborator.num_labels).double()
            count_C, sum_CD = one_hot_RC.sum(0), one_hot_RC.T @ remembered_RD.double()
        else:
            return empty
        mean_CK, whiten_DK = class_means(count_C, sum_CD), empty.whiten_DK
        if base is not None and base.kind == "lda":
            covariance_DD = pooled_covariance(count_C, sum_CD, base.gram_DD, base.shrinkage)
            # A = L L^T of the inverse: |(x - m) L|^2 = (x - m) A (x - m).
            whiten_DK = torch.linalg.cholesky(torch.linalg.inv(covariance_DD))
            mean_CK = mean_CK @ whiten_DK
        return cls(
            mean_CK.contiguous(),
            count_C > 0,
            whiten_DK.contiguous(),
            remembered_RD[:MAX_REMEMBERED].contiguous(),  # in the order of their keys, which is random
            label_R[:MAX_REMEMBERED].contiguous(),
        )

    def distances(self, features_ND: ArrayLike) -> NDArray[np.float64] | None:
        """Distance to every class mean, [N, C], infinite for labels without rows; None if no means are known."""
        if not len(self.mean_CK):
            return None
        mean_CK, square_C = self._means
        x_NK = _unit(features_ND).astype(np.float64)
        if len(self.whiten_DK):
            x_NK = x_NK @ self.whiten_DK.numpy()
        square_NC = np.square(x_NK).sum(1, keepdims=True) - 2 * x_NK @ mean_CK.T + square_C
        return np.where(self.seen_C.numpy(), np.sqrt(np.maximum(square_NC, 0)), np.inf)

    def neighbours(self, features_ND: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
        """Cosine distance of the nearest remembered rows, and their labels, [N, k] each; None without a memory."""
        if not len(self.label_R):
            return None
        cosine_NR = _unit(features_ND) @ self.remembered_RD.numpy().T
        count = min(NEIGHBOURS, len(self.label_R))
        near_NK = np.argpartition(-cosine_NR, count - 1, axis=1)[:, :count]
        cosine_NK = np.take_along_axis(cosine_NR, near_NK, 1)
        order_NK = np.argsort(-cosine_NK, axis=1)
        near_NK, cosine_NK = (np.take_along_axis(columns, order_NK, 1) for columns in (near_NK, cosine_NK))
        return 1 - cosine_NK.astype(np.float64), self.label_R.numpy()[near_NK]

    @cached_property
    def _means(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The means, and their squared lengths [C]."""
        mean_CK = self.mean_CK.numpy()
        return mean_CK, np.square(mean_CK).sum(1)


def _unit(features_ND: ArrayLike) -> NDArray[np.float32]:
    x_ND = np.asarray(features_ND, dtype=np.float32)
    return np.asarray(x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), _TINY))
