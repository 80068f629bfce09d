"""Distance of a ridge regression's outputs from its targets, in the metric of its residuals.

With targets Y [N, C] of one size T at a row's label, H = X (X^T X + lambda I)^-1 X^T, and y the outputs of a row,

    E = Y^T (I - H) Y / N,    d_c(y)^2 = (y - T e_c)^T E^-1 (y - T e_c)

By Woodbury's identity N / N_c - d_c^2 is N times the difference of two distances among the inputs: to the mean of all
rows under their covariance, less that to the mean of class c under the pooled one; about the origin, and with lambda in
both. That is the relative Mahalanobis distance (arXiv 2106.09022), from C outputs in place of P inputs.

E^-1 of the regression that never saw a class whose rows all lie at their mean is E^-1 without its row and column. So
its part of y is left out, and the outputs are those that `without_own_class` gives. Shapes: C labels, P inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kcm.closed_form.sums import RidgeSums

_ROUNDING = 1e-6  # of the mean variance: what float32 leaves of outputs that sum to T


def residual_metric(sums: RidgeSums, weight_CP: Tensor, target: float) -> Tensor:
    """E^-1 [C, C] of the first model, whose targets are labels; 0 for labels without rows."""
    num_labels = len(weight_CP)
    totals_C = sums.totals_K[:num_labels]
    residuals_CC = (target * totals_C).diag() - sums.cross_PK[:, :num_labels].T @ weight_CP.T
    covariance_CC = (residuals_CC + residuals_CC.T) / 2 / sums.count
    seen_C = totals_C > 0
    covariance_CC.diagonal().add_(_ROUNDING * covariance_CC.diagonal()[seen_C].mean()).add_(1.0 * ~seen_C)
    metric_CC: Tensor = torch.linalg.inv(covariance_CC)
    return (metric_CC * torch.outer(seen_C, seen_C)).contiguous()
