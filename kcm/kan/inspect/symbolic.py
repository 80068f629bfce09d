"""Symbolic fits: the known function, shifted and scaled, that is closest to a curve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sympy  # type: ignore[import-untyped]  # comes with torch
from numpy.typing import NDArray
from scipy.optimize import least_squares
from torch import Tensor

from kcm.errors import ConfigError
from kcm.kan.inspect.curves import CurveLayer, edge_curve, layer_inputs, live_edges
from kcm.kan.layer import KANLinear
from kcm.kan.network import KAN

Array = NDArray[np.float64]

_MAX_POINTS = 200

# Simplest first, for numbers and for symbols. Each is searched as c f(a x + b) + d.
_LIBRARY: dict[str, tuple[Callable[[Array], Array], Callable[[Any], Any]]] = {
    "x": (lambda z: z, lambda z: z),
    "x^2": (np.square, lambda z: z**2),
    "exp": (np.exp, sympy.exp),
    "sin": (np.sin, sympy.sin),
    "abs": (np.abs, sympy.Abs),
    "sqrt": (np.sqrt, sympy.sqrt),
    "log": (np.log, sympy.log),
    "tanh": (np.tanh, sympy.tanh),
    "1/x": (lambda z: 1 / z, lambda z: 1 / z),
    "x^3": (lambda z: z**3, lambda z: z**3),
    "gaussian": (lambda z: np.exp(-(z**2)), lambda z: sympy.exp(-(z**2))),
}
_EVEN, _ODD = {"x^2", "abs", "gaussian"}, {"x^3", "sin", "tanh", "1/x"}


@dataclass(frozen=True)
class Symbolic:
    """`c * function(a * x + b) + d`, explaining the share `r2` of a curve's variance."""

    function: str
    a: float
    b: float
    c: float
    d: float
    r2: float

    def __call__(self, x: Array) -> Array:
        """Values of the formula; NaN where the function has none."""
        with np.errstate(all="ignore"):
            return self.c * _LIBRARY[self.function][0](self.a * x + self.b) + self.d

    def expression(self, x: Any) -> Any:
        """The formula of a sympy expression."""
        return self.c * _LIBRARY[self.function][1](self.a * x + self.b) + self.d


def to_symbolic(layer: CurveLayer, i: int, j: int, points_P: Tensor | None = None, tolerance: float = 1e-4) -> Symbolic:
    """The simplest function of the library that explains the curve from input `i` to output `j`.

    `points_P` [P], by default over its whole span, should be values that the input really takes. Simplest is the first
    whose R² is within `tolerance` of the best; `symbolic_fits` returns all (after arXiv 2404.19756, section 2.5).
    """
    fits = symbolic_fits(layer, i, j, points_P)
    best = max(fit.r2 for fit in fits)
    return next(fit for fit in fits if fit.r2 >= best - tolerance)


def symbolic_fits(layer: CurveLayer, i: int, j: int, points_P: Tensor | None = None) -> list[Symbolic]:
    """The best fit of each function of the library, simplest function first; an edge without a curve is a constant.

    Raise ConfigError for fewer than 5 different points.
    """
    x, y = (values.double().cpu().numpy() for values in edge_curve(layer, i, j, points_P))
    x, first = np.unique(x, return_index=True)
    if len(x) < 5:
        raise ConfigError(f"points hold {len(x)} different values", where="to_symbolic", hint="A fit needs at least 5")
    chosen = np.linspace(0, len(x) - 1, min(len(x), _MAX_POINTS)).astype(int)
    x, y = x[chosen], y[first[chosen]]
    if np.ptp(y) < 1e-9:
        return [Symbolic("x", 1.0, 0.0, 0.0, float(y.mean()), 1.0)]
    return [_fit(name, x, y) for name in _LIBRARY]


def formula(network: KAN, x_NI: Tensor, names: Sequence[str] | None = None, digits: int = 2) -> list[str]:
    """One formula per output of a small, pruned network: the fits of its live edges put together and simplified.

    `x_NI` are probe rows: each curve is read where they fall. `names` are the inputs, by default x1, x2, ... Raise
    ConfigError when there are more or fewer names than inputs.
    """
    num_inputs, layers = network.widths[0], network.kan_layers
    names = [f"x{i + 1}" for i in range(num_inputs)] if names is None else names
    if len(names) != num_inputs:
        raise ConfigError(f"{len(names)} names for {num_inputs} inputs", where="formula", hint="Name each one once")
    nodes: list[Any] = [sympy.Symbol(name) for name in names]
    for layer, seen_NI in zip(layers, layer_inputs(layers, x_NI), strict=True):
        nodes = [_sum_of_edges(layer, seen_NI, nodes, j) for j in range(layer.out_features)]
    return [str(_rounded(sympy.expand(node, power_exp=False), digits)) for node in nodes]


def _sum_of_edges(layer: KANLinear, seen_NI: Tensor, nodes: list[Any], j: int) -> Any:
    live_OI, total = live_edges(layer), sympy.Float(0)
    for i, node in enumerate(nodes):
        if live_OI[j, i]:
            total += to_symbolic(layer, i, j, seen_NI[:, i]).expression(node)
        else:
            total += float(edge_curve(layer, i, j)[1][0])
    return total


def _rounded(expression: Any, digits: int) -> Any:
    def short(number: Any) -> Any:
        value = round(float(number), digits)
        return sympy.Integer(int(value)) if value == int(value) else sympy.Float(value, digits + len(str(int(value))))

    return expression.xreplace({number: short(number) for number in expression.atoms(sympy.Float)})


def _fit(name: str, x: Array, y: Array) -> Symbolic:
    """Search a and b on a mesh, where c and d are linear least squares, and polish the three best together."""
    function = _LIBRARY[name][0]
    if name == "x":
        slope, level = np.polyfit(x, y, 1)
        return Symbolic(name, 1.0, 0.0, float(slope), float(level), _r2(y, slope * x + level))
    middle, half = (x.max() + x.min()) / 2, np.ptp(x) / 2
    t = (x - middle) / half  # the mesh is for arguments in [-1, 1]
    scales, shifts = np.concatenate([-np.geomspace(8, 0.1, 24), np.geomspace(0.1, 8, 24)]), np.linspace(-6, 6, 49)
    a_M, b_M = (mesh.ravel() for mesh in np.meshgrid(scales, shifts))
    with np.errstate(all="ignore"):
        z_MP = function(a_M[:, None] * t + b_M[:, None])
        z_MP -= z_MP.mean(1, keepdims=True)
        variance_M = (z_MP @ (y - y.mean())) ** 2 / (z_MP**2).sum(1)
    variance_M = np.where(np.isfinite(variance_M), variance_M, -np.inf)
    fits = [_polish(function, t, y, a_M[m], b_M[m]) for m in np.argsort(variance_M)[-3:] if variance_M[m] > -np.inf]
    if not fits:
        return Symbolic(name, 1.0, 0.0, 0.0, float(y.mean()), 0.0)
    r2, (a, b, c, d) = max(fits, key=lambda fit: fit[0])
    return _tidy(Symbolic(name, float(a / half), float(b - a * middle / half), float(c), float(d), r2))


def _polish(function: Callable[[Array], Array], t: Array, y: Array, a: float, b: float) -> tuple[float, Array]:
    c, d = np.polyfit(function(a * t + b), y, 1)

    def residual(parameters: Array) -> Array:
        with np.errstate(all="ignore"):
            left = parameters[2] * function(parameters[0] * t + parameters[1]) + parameters[3] - y
        return np.where(np.isfinite(left), left, 1e6)

    parameters = least_squares(residual, [a, b, c, d], max_nfev=200).x
    return _r2(y, y + residual(parameters)), parameters


def _tidy(fit: Symbolic) -> Symbolic:
    """The same formula with a positive `a` where the function is even or odd, and a small phase in a sine."""
    a, b, c = fit.a, fit.b, fit.c
    if a < 0 and fit.function in _EVEN | _ODD:
        a, b, c = -a, -b, -c if fit.function in _ODD else c
    if fit.function == "sin":
        half_turns = round(b / np.pi)
        b, c = b - half_turns * np.pi, c * (-1) ** half_turns
    return replace(fit, a=a, b=b, c=c)


def _r2(y: Array, fitted: Array) -> float:
    return float(1 - np.square(y - fitted).sum() / np.square(y - y.mean()).sum())
