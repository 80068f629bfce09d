"""Learned curves over mixtures of the inputs, plus a linear part: a KAN layer that one ridge regression solves.

Shapes: D inputs, P mixtures, K splines of an edge (J = K - 2 of them free after a line), O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh, null_space
from torch import Tensor

from kcm.kan.basis import Grid, spline_basis
from kcm.kan.random_relu import ProjectedCurves

MIN_FREE = 4  # free coefficients of an edge after its line: fewer make no learned curve
SHRINKAGE = 0.1  # share of the isotropic covariance added to the rows' covariance: an unseen direction stays visible


class MixedSplines(ProjectedCurves):
    """A learned curve for each of P mixtures v = R (x - m), and a linear map of the inputs.

    f_1 to f_J span everything that the splines of an edge can do except a line. They are scaled so that a ridge on the
    weights penalises third differences of spline coefficients (P-splines, Eilers and Marx, Statistical Science 11,
    1996), times `roughness`. A parabola has no third differences, so without evidence a curve is a parabola, which
    bends as far as the rows require.

    Mixtures are random directions until `fit` turns them into random mixtures of rows. They do not contain the last
    `num_linear` inputs, of which the output is a linear map.
    """

    mean: Tensor
    turn: Tensor

    def __init__(
        self,
        in_features: int,
        width: int,
        out_features: int,
        grid: Grid,
        roughness: float,
        *,
        seed: int = 0,
        num_linear: int = 0,
    ) -> None:
        turn_JK = torch.from_numpy(bends(grid, roughness)).float()
        self.num_curves = len(turn_JK)
        super().__init__(in_features, width, out_features, seed=seed, num_linear=num_linear)
        self.grid, self.span = grid, (grid.low, grid.high)
        self.register_buffer("mean", torch.zeros(in_features - num_linear))
        self.register_buffer("turn", turn_JK)

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor], add_up: Callable[[list[Tensor]], None] = lambda sums: None) -> None:
        """Fit the mixtures to rows [n, D], summed in float64; each gets mean 0 and a variance of about 1.

        With S = L L^T the covariance of the rows, a direction r becomes L r: a mixture of centred rows with random
        weights. Curves then lie where rows differ. `add_up` replaces the sums of this process by the sums over all
        processes that hold a part of the rows.
        """
        dim = len(self.mean)
        zeros = partial(self.mean.new_zeros, dtype=torch.float64)
        count, total_D, square_DD = zeros(1), zeros(dim), zeros((dim, dim))
        for batch in batches:
            wide = batch[:, :dim].to(total_D)
            count, total_D, square_DD = count + len(wide), total_D + wide.sum(0), square_DD + wide.T @ wide
        add_up([count, total_D, square_DD])
        mean_D = total_D / count
        covariance_DD = square_DD / count - torch.outer(mean_D, mean_D)
        variance = float(covariance_DD.diagonal().mean())
        if not variance > 1e-12 * float(square_DD.diagonal().sum() / count):  # equal rows: keep the drawn directions
            return
        shrunk_DD = torch.lerp(covariance_DD, variance * torch.eye(dim).to(covariance_DD), SHRINKAGE)
        mixture_PD = self.projection.double() @ torch.linalg.cholesky(shrunk_DD).T
        deviation_P = torch.einsum("pd,de,pe->p", mixture_PD, shrunk_DD, mixture_PD).sqrt()
        self.projection.copy_(mixture_PD / deviation_P[:, None])
        self.mean.copy_(mean_D)

    @torch.no_grad()
    def mix_as(self, other: MixedSplines) -> None:
        """Use the mixtures of a network of the same form."""
        self.projection.copy_(other.projection)
        self.mean.copy_(other.mean)

    def projected(self, x: Tensor) -> Tensor:
        """The part of `x` [..., D] that is mixed, about the mean of the fitted rows."""
        return super().projected(x) - self.mean.to(x.dtype)

    def bent(self, v: Tensor) -> Tensor:
        """The curves f_1 to f_J."""
        return self.turn.to(v.dtype) @ spline_basis(v, self.grid)


@lru_cache
def bends(grid: Grid, roughness: float) -> NDArray[np.float64]:
    """The part of a grid's splines without lines: [J, K] coefficients of curves f_1 to f_J, the smoothest first.

    Over a standard normal input the curves are orthogonal to each other, to a constant and to a line. Their squares
    have the mean 1 / (1 + roughness |D^3 c|^2), where D^3 c are third differences of the coefficients before scaling.
    There are at least four curves (`NetworkConfig`).
    """
    z_N = np.linspace(-6, 6, 4001)
    mass_N = np.exp(-(z_N**2) / 2) / np.exp(-(z_N**2) / 2).sum()
    splines_NK = spline_basis(torch.from_numpy(z_N)[:, None], grid)[:, :, 0].numpy()
    beside_line_KJ = null_space(np.stack([mass_N, mass_N * z_N]) @ splines_NK)
    differences_TJ = np.diff(np.eye(grid.num_basis), 3, axis=0) @ beside_line_KJ
    curves_NJ = np.sqrt(mass_N)[:, None] * (splines_NK @ beside_line_KJ)
    rough_J, turn_JJ = eigh(differences_TJ.T @ differences_TJ, curves_NJ.T @ curves_NJ)
    turn_KJ = beside_line_KJ @ turn_JJ / np.sqrt(1 + roughness * rough_J.clip(0))
    return np.asarray((turn_KJ * np.sign(turn_KJ[np.abs(turn_KJ).argmax(0), range(len(rough_J))])).T)
