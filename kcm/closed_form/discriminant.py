"""Discriminants and a metric that need nothing but sums of rows: the nearest mean, LDA, and the metric of residuals.

With n_c rows of class c, their mean m_c, and the pooled covariance S = sum_c sum_n (x_n - m_c)(x_n - m_c)^T / (N - C):

    nearest mean    x . m_c - |m_c|^2 / 2                                 (Mensink et al., IEEE TPAMI 35, 2013)
    LDA             x . A m_c - m_c . A m_c / 2,    A = ((1 - s) S + s tr(S) / P I)^-1

LDA is Bayes' rule for normal classes of one covariance and equal priors, so that classes of many rows have no
advantage; s is the shrinkage (streaming LDA, arXiv 1909.01520, equation 2, where it is absolute). What is the same for
all classes is left out. Shapes: P inputs, C classes; a class without rows gets weight and bias 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kcm.closed_form.gcv import RidgeSums

_ROUNDING = 1e-10  # of the mean square: what sums leave of a covariance that is not there


def nearest_mean(count_C: Tensor, sum_CP: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [C, P] and bias [C] of the nearest mean."""
    mean_CP = class_means(count_C, sum_CP)
    return mean_CP, -mean_CP.square().sum(1) / 2


def linear_discriminant(count_C: Tensor, sum_CP: Tensor, gram_PP: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Weight [C, P] and bias [C] of LDA; of `gram_PP`, sum x x^T, the upper triangle is read. All in float64."""
    # About the mean of all rows: differences of large numbers stay out of the covariance and of the biases.
    centre_P = sum_CP.sum(0) / count_C.sum()
    from_centre_CP = (class_means(count_C, sum_CP) - centre_P) * (count_C > 0)[:, None]
    covariance_PP = pooled_covariance(count_C, sum_CP, gram_PP, shrinkage)
    factor_PP = torch.linalg.cholesky(covariance_PP, upper=True)
    weight_CP = torch.cholesky_solve(from_centre_CP.T, factor_PP, upper=True).T
    bias_C = -(weight_CP * (from_centre_CP / 2 + centre_P)).sum(1)
    return weight_CP, bias_C


def pooled_covariance(count_C: Tensor, sum_CP: Tensor, gram_PP: Tensor, shrinkage: float) -> Tensor:
    """The shrunken covariance [P, P] of rows about their class means; its upper triangle where `gram_PP` is one."""
    seen_C1 = (count_C > 0)[:, None]
    num_rows, num_inputs = float(count_C.sum()), len(gram_PP)
    centre_P = sum_CP.sum(0) / num_rows
    from_centre_CP = (class_means(count_C, sum_CP) - centre_P) * seen_C1
    total_PP = gram_PP - num_rows * torch.outer(centre_P, centre_P)
    within_PP = total_PP - (from_centre_CP * count_C[:, None]).T @ from_centre_CP
    degrees = num_rows - float(seen_C1.sum())
    # A single row of each class says nothing of how rows of a class vary: as all rows do, then.
    covariance_PP = within_PP / degrees if degrees else total_PP / num_rows
    mean_variance = float(covariance_PP.diagonal().sum()) / num_inputs
    rounding = _ROUNDING * float(gram_PP.diagonal().sum()) / num_rows / num_inputs
    covariance_PP = (1 - shrinkage) * covariance_PP
    covariance_PP.diagonal().add_(max(shrinkage * mean_variance, rounding))
    return covariance_PP


def class_means(count_C: Tensor, sum_CP: Tensor) -> Tensor:
    """The mean of every class, [C, P]; zero for one without rows."""
    return sum_CP / count_C.clamp_min(1)[:, None]


_OUTPUT_ROUNDING = 1e-6  # of the mean variance: what float32 leaves of outputs that sum to T


def residual_metric(sums: RidgeSums, weight_CP: Tensor, target: float) -> Tensor:
    """E^-1 [C, C] of the first model, whose targets are labels; 0 for labels without rows.

    It measures how far a regression's outputs are from its targets. With targets Y [N, C] of one size T at a row's
    label, H = X (X^T X + lambda I)^-1 X^T, and y the outputs of a row,

        E = Y^T (I - H) Y / N,    d_c(y)^2 = (y - T e_c)^T E^-1 (y - T e_c)

    By Woodbury's identity N / N_c - d_c^2 is N times the difference of two distances among the inputs: to the mean of
    all rows under their covariance, less that to the mean of class c under the pooled one; about the origin, and with
    lambda in both. That is the relative Mahalanobis distance (arXiv 2106.09022), from C outputs in place of P inputs.

    E^-1 of the regression that never saw a class whose rows all lie at their mean is E^-1 without its row and column.
    So its part of y is left out, and the outputs are those that `without_own_class` gives.
    """
    num_labels = len(weight_CP)
    totals_C = sums.totals_K[:num_labels]
    residuals_CC = (target * totals_C).diag() - sums.cross_PK[:, :num_labels].T @ weight_CP.T
    covariance_CC = (residuals_CC + residuals_CC.T) / 2 / sums.count
    seen_C = totals_C > 0
    covariance_CC.diagonal().add_(_OUTPUT_ROUNDING * covariance_CC.diagonal()[seen_C].mean()).add_(1.0 * ~seen_C)
    metric_CC: Tensor = torch.linalg.inv(covariance_CC)
    return (metric_CC * torch.outer(seen_C, seen_C)).contiguous()
