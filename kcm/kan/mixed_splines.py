"""Learned curves over mixtures of the inputs, plus a linear part: a KAN layer that one ridge regression solves.

Shapes: D inputs, P mixtures, K splines of an edge (J = K - 2 of them free after a line), O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh, null_space
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.errors import ConfigError
from kcm.kan.basis import Grid, spline_basis
from kcm.kan.random_relu import RandomReLU, UnitCurves

MIN_FREE = 4  # free coefficients of an edge after its line: fewer make no learned curve
SHRINKAGE = 0.1  # share of the isotropic covariance added to the rows' covariance: an unseen direction stays visible


class MixedSplines(RandomReLU):
    """y = W phi(x) + offset with a curve for each of P mixtures v = R (x - m), and a linear map of the inputs:

        phi(x) = [sqrt(P / D) x, f_1(v), ..., f_J(v), sqrt(P)] / 2

    This is a KAN layer over v whose linear parts are folded: lines in P mixtures are a linear map of D inputs. A label
    therefore needs D + J P + 1 coefficients. f_1 to f_J span everything that the splines of an edge can do except a
    line. They are scaled so that a ridge on W penalises third differences of spline coefficients (P-splines, Eilers and
    Marx, Statistical Science 11, 1996), times `roughness`. A parabola has no third differences, so without evidence a
    curve is a parabola, which bends as far as the rows require.

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
        """Raise ConfigError for a grid whose edges have fewer than four coefficients after a line."""
        super().__init__(in_features, width, out_features, seed=seed, num_linear=num_linear)
        self.grid = grid
        self.register_buffer("mean", torch.zeros(in_features - num_linear))
        self.register_buffer("turn", torch.from_numpy(bends(grid, roughness)).float())  # [J, K]
        num_features = in_features + width * len(self.turn) + 1
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(self.drawn_weight(out_features, num_features, generator))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor], add_up: Callable[[list[Tensor]], None] = lambda sums: None) -> None:
        """Fit the mixtures to rows [n, D], summed in float64; each gets mean 0 and a variance of about 1.

        With S = L L^T the covariance of the rows, a direction r becomes L r: a mixture of centred rows with random
        weights. Curves then lie where rows differ. `add_up` replaces the sums of this process by the sums over all
        processes that hold a part of the rows.
        """
        dim = len(self.mean)
        count, total_D, square_DD = (torch.zeros(size, dtype=torch.float64) for size in ((1,), (dim,), (dim, dim)))
        for batch in batches:
            wide = batch[:, :dim].to(total_D)
            count, total_D, square_DD = count + len(wide), total_D + wide.sum(0), square_DD + wide.T @ wide
        add_up([count, total_D, square_DD])
        mean_D = total_D / count
        covariance_DD = square_DD / count - torch.outer(mean_D, mean_D)
        variance = float(covariance_DD.diagonal().mean())
        if not variance > 1e-12 * float(square_DD.diagonal().sum() / count):  # equal rows: keep the drawn directions
            return
        shrunk_DD = torch.lerp(covariance_DD, variance * torch.eye(dim, dtype=torch.float64), SHRINKAGE)
        mixture_PD = self.projection.double() @ torch.linalg.cholesky(shrunk_DD).T
        deviation_P = torch.einsum("pd,de,pe->p", mixture_PD, shrunk_DD, mixture_PD).sqrt()
        self.projection.copy_(mixture_PD / deviation_P[:, None])
        self.mean.copy_(mean_D)

    @torch.no_grad()
    def mix_as(self, other: MixedSplines) -> None:
        """Use the mixtures of a network of the same form."""
        self.projection.copy_(other.projection)
        self.mean.copy_(other.mean)

    def features(self, x: Tensor) -> Tensor:
        """The features that the output is linear in, [..., D + J P + 1], in the precision of `x` [..., D]."""
        width, num_mixed = self.projection.shape
        curves_JP = self.turn.to(x.dtype) @ spline_basis(self.projections(x), self.grid)
        constant = x.new_full((*x.shape[:-1], 1), math.sqrt(width))
        return 0.5 * torch.cat([math.sqrt(width / num_mixed) * x, curves_JP.flatten(-2), constant], -1)

    @property
    def kan_layers(self) -> list[UnitCurves]:
        """The one layer of curves over `curve_inputs`: a line for each input, a spline for each mixture.

        A spline shows its change from the mean of the rows, where it is zero; the constant holds the rest.
        """
        (width, num_mixed), (num_inputs, _) = self.projection.shape, self.widths
        weight = 0.5 * self.weight.detach()
        lines_OD, free_OF, constant_O1 = torch.split(weight, [num_inputs, width * len(self.turn), 1], 1)
        free_OJP = free_OF.unflatten(1, (-1, width))  # type: ignore[no-untyped-call]
        splines_OKP = self.turn.T @ free_OJP
        at_mean_K = spline_basis(self.turn.new_zeros(1), self.grid)[:, 0]
        at_mean_OP = torch.einsum("k,okp->op", at_mean_K, splines_OKP)
        num_splines = self.grid.num_basis
        coefficients_OFI = lines_OD.new_zeros(len(lines_OD), 1 + num_splines, num_inputs + width)
        coefficients_OFI[:, 0, :num_inputs] = math.sqrt(width / num_mixed) * lines_OD
        coefficients_OFI[:, 1:, num_inputs:] = splines_OKP - at_mean_OP[:, None]  # splines sum to one
        constant_O = math.sqrt(width) * constant_O1[:, 0] + at_mean_OP.sum(1) + self.offset
        span = self.grid.low, self.grid.high
        return [UnitCurves(coefficients_OFI, constant_O, span, partial(_line_and_splines, grid=self.grid))]

    def curve_inputs(self, x: Tensor) -> Tensor:
        """The inputs of the curves, [..., D + P] for `x` [..., D]: the inputs, then their mixtures."""
        return torch.cat([x, self.projections(x)], -1)

    def passed_back(self, shares: Tensor, x: Tensor) -> Tensor:
        """The shares [..., D + P] of the curves at `x` [..., D] as shares of the inputs, [..., D].

        A spline's share is split in proportion to each input's part of the mixture (DeepLIFT's rescale rule).
        """
        of_inputs, of_mixtures = torch.split(shares, [x.shape[-1], len(self.projection)], -1)
        v = self.projections(x)
        slopes = torch.where(v != 0, of_mixtures / torch.where(v != 0, v, 1), 0)
        centred = x[..., : len(self.mean)] - self.mean.to(x.dtype)
        return of_inputs + F.pad(centred * (slopes @ self.projection.to(x.dtype)), (0, self.num_linear))

    def projections(self, x: Tensor) -> Tensor:
        """The mixtures v, [..., P]."""
        return F.linear(x[..., : len(self.mean)] - self.mean.to(x.dtype), self.projection.to(x.dtype))


@lru_cache
def bends(grid: Grid, roughness: float) -> NDArray[np.float64]:
    """The part of a grid's splines without lines: [J, K] coefficients of curves f_1 to f_J, the smoothest first.

    Over a standard normal input the curves are orthogonal to each other, to a constant and to a line. Their squares
    have the mean 1 / (1 + roughness |D^3 c|^2), where D^3 c are third differences of the coefficients before scaling.
    Raises ConfigError for fewer than four curves.
    """
    if grid.num_basis - 2 < MIN_FREE:
        raise ConfigError(
            f"grid_size {grid.size} and spline_order {grid.order} leave a curve {grid.num_basis - 2} free coefficients",
            hint=f"Give grid_size + spline_order = {MIN_FREE + 2} or more",
        )
    z_N = np.linspace(-6, 6, 4001)
    mass_N = np.exp(-(z_N**2) / 2) / np.exp(-(z_N**2) / 2).sum()
    splines_NK = spline_basis(torch.from_numpy(z_N)[:, None], grid)[:, :, 0].numpy()
    beside_line_KJ = null_space(np.stack([mass_N, mass_N * z_N]) @ splines_NK)
    differences_TJ = np.diff(np.eye(grid.num_basis), 3, axis=0) @ beside_line_KJ
    curves_NJ = np.sqrt(mass_N)[:, None] * (splines_NK @ beside_line_KJ)
    rough_J, turn_JJ = eigh(differences_TJ.T @ differences_TJ, curves_NJ.T @ curves_NJ)
    turn_KJ = beside_line_KJ @ turn_JJ / np.sqrt(1 + roughness * rough_J.clip(0))
    return np.asarray((turn_KJ * np.sign(turn_KJ[np.abs(turn_KJ).argmax(0), range(len(rough_J))])).T)


def _line_and_splines(z: Tensor, grid: Grid) -> Tensor:
    """The functions of every edge, [..., 1 + K, I] for `z` [..., I]."""
    return torch.cat([z.unsqueeze(-2), spline_basis(z, grid)], -2)
