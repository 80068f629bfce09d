"""Ridge regression of bought rows, their left-out scores, and the leverage of any row: one factorisation a strength.

Shapes: B rows, P features, C labels, n other rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular

Array = NDArray[np.float64]
_STRENGTHS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)  # relative to the mean eigenvalue


@dataclass(frozen=True, eq=False)
class Regression:
    """scores(x) = mean of the targets + (x - mean of the rows) W, of the strength with the least left-out error.

    `left_out_BC` are the scores of every row by the regression without it, `leverage_B` the leverage for that one: of a
    row h = 1 - strength [(K + strength I)^-1]_ii within the fit, q = h / (1 - h) without it.
    """

    left_out_BC: Array
    leverage_B: Array
    _mean_P: Array
    _mean_C: Array
    _weight_PC: Array
    _strength: float
    _factor: Array  # lower Cholesky factor of K + strength I [B, B], or of X'X + strength I [P, P]
    _rows_BP: Array | None  # only if K was factored

    @classmethod
    def fitted(cls, x_BP: Array, target_BC: Array) -> Regression:
        """Fit with every strength, and keep the best."""
        mean_P, mean_C = x_BP.mean(0), target_BC.mean(0)
        x_BP, y_BC = x_BP - mean_P, target_BC - mean_C
        dual = len(x_BP) < x_BP.shape[1]
        gram = x_BP @ x_BP.T if dual else x_BP.T @ x_BP
        mean = max(float(np.trace(gram)) / len(x_BP), 1e-9)  # 0 if all rows are equal
        fits = (cls._of(x_BP, y_BC, gram, strength * mean, dual) for strength in _STRENGTHS)
        _, (left_BC, leverage_B, weight_PC, strength, factor) = min(fits, key=lambda fit: fit[0])
        own_B = leverage_B / np.maximum(1 - leverage_B, 1e-9)
        # All left-out scores share the mean of all targets, see `kcm.closed_form.left_out`.
        left_BC = left_BC + y_BC / (len(y_BC) - 1) + mean_C
        return cls(left_BC, own_B, mean_P, mean_C, weight_PC, strength, factor, x_BP if dual else None)

    @staticmethod
    def _of(
        x_BP: Array, y_BC: Array, gram: Array, strength: float, dual: bool
    ) -> tuple[float, tuple[Array, Array, Array, float, Array]]:
        """The left-out error of one strength, with the parts of its regression."""
        factor = cholesky(gram + strength * np.eye(len(gram)), lower=True)
        if dual:
            inverse_BB = cho_solve((factor, True), np.eye(len(gram)))
            alpha_BC = inverse_BB @ y_BC
            leverage_B, residual_BC = 1 - strength * inverse_BB.diagonal(), strength * alpha_BC
            weight_PC = x_BP.T @ alpha_BC
        else:
            weight_PC = cho_solve((factor, True), x_BP.T @ y_BC)
            leverage_B = (solve_triangular(factor, x_BP.T, lower=True) ** 2).sum(0)
            residual_BC = y_BC - x_BP @ weight_PC
        rest_B = np.maximum(1 - leverage_B - 1 / len(y_BC), 1e-9)  # the constant has a leverage of 1 / B
        left_BC = y_BC - residual_BC / rest_B[:, None]
        return float(((left_BC - y_BC) ** 2).sum()), (left_BC, leverage_B, weight_PC, strength, factor)

    def scores(self, x_nP: Array) -> tuple[Array, Array]:
        """Scores [n, C] and leverage [n] of other rows."""
        x_nP = x_nP - self._mean_P
        score_nC = x_nP @ self._weight_PC + self._mean_C
        if self._rows_BP is None:
            return score_nC, (solve_triangular(self._factor, x_nP.T, lower=True) ** 2).sum(0)
        # x'(X'X + s I)^-1 x = (x'x - k'(K + s I)^-1 k) / s with k = X x
        white_Bn = solve_triangular(self._factor, self._rows_BP @ x_nP.T, lower=True)
        return score_nC, np.asarray(((x_nP**2).sum(1) - (white_Bn**2).sum(0)) / self._strength)
