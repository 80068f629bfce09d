"""The contributions to a logit: the largest contributions, and the edge behind each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kcm.errors import ConfigError
from kcm.kan.inspect.attribution import attribution, first_changes
from kcm.kan.inspect.curves import CurveNetwork, edge_curve


@dataclass(frozen=True)
class Contribution:
    """The contribution of one input to a logit, through all its curves.

    The input, called `name`, is an encoder feature or a projection of all features. `feature` is its number, and
    `value` its value after the normaliser. `through` is the output of the first layer that carried most of the
    contribution, and `carried` is that part; in a one-layer network `through` is the label itself and carries
    everything. The logit counts this edge's value `slope` times. The edge leads to `to`, a label or a hidden node; at
    `points` it would add `curve` to the logit.
    """

    feature: int
    value: float
    contribution: float
    through: int
    carried: float
    slope: float
    name: str
    to: str = ""
    points: tuple[float, ...] = ()
    curve: tuple[float, ...] = ()


@dataclass(frozen=True)
class Reasons:
    """The contributions to the logit of `label`, called `label_name`, largest first; `rest` is the sum of all others.

    `baseline` is the logit of the reference input; in a one-layer network, the constant outside its curves, which is
    zero for splines. `base` is the part of the class means, which no curve shows. Hence the logit is baseline + base +
    sum of contributions + rest. `exact` says whether each share is exact, as in a one-layer network, or DeepLIFT's
    approximation (see `kcm.kan.inspect.attribution`).
    """

    label: int
    logit: float
    baseline: float
    base: float
    contributions: tuple[Contribution, ...]
    rest: float
    exact: bool
    label_name: str = ""


def reasons_for(
    network: CurveNetwork,
    x_I: Tensor,
    label: int,
    top: int = 10,
    base_C: Tensor | None = None,
    name: Callable[[int], str] = "feature {}".format,
    label_names: Sequence[str] = (),
) -> Reasons:
    """The `top` largest contributions, by size, to the logit of `label` for the scaled input `x_I` [I].

    `base_C` are the logits that the network adds to, `name` returns the name of a curve's input by its number, and
    `label_names` are the names of the labels.

    Raises DataError for an input of another width, ConfigError for a label that does not exist.
    """
    if not 0 <= label < network.widths[-1]:
        raise ConfigError(f"label = {label}", where="explain", hint=f"It must be from 0 to {network.widths[-1] - 1}")
    shares = attribution(network, x_I.unsqueeze(0))
    share_I, slope_H = shares.contributions[0, label], shares.slopes[0, label]
    by_edge_HI = slope_H.unsqueeze(1) * first_changes(network, x_I.unsqueeze(0))[0]
    through_I = by_edge_HI.abs().argmax(0)
    value_I = network.curve_inputs(x_I)
    inputs = share_I.abs().argsort(descending=True, stable=True)[:top].tolist()
    names, exact = label_names or [str(number) for number in range(network.widths[-1])], len(network.kan_layers) == 1
    contributions = tuple(
        _with_curve(
            network,
            Contribution(
                i,
                float(value_I[i]),
                float(share_I[i]),
                h,
                float(by_edge_HI[h, i]),
                float(slope_H[h]),
                name(i),
                to=names[h] if exact else f"hidden node {h}",
            ),
        )
        for i, h in zip(inputs, through_I[inputs].tolist(), strict=True)
    )
    total, baseline = float(share_I.sum()), float(shares.baseline[label])
    remainder = total - sum(part.contribution for part in contributions)
    base = 0.0 if base_C is None else float(base_C[label])
    return Reasons(label, baseline + base + total, baseline, base, contributions, remainder, exact, names[label])


def _with_curve(network: CurveNetwork, contribution: Contribution) -> Contribution:
    points_P, curve_P = contribution_curve(network, contribution)
    return replace(
        contribution,
        points=tuple(round(point, 4) for point in points_P.tolist()),
        curve=tuple(round(value, 5) for value in curve_P.tolist()),
    )


@torch.no_grad()
def contribution_curve(
    network: CurveNetwork, contribution: Contribution, num_points: int = 101
) -> tuple[Tensor, Tensor]:
    """What the edge behind a contribution would add to the logit for other values of its input: points, values [P].

    The points span the curve and the input's own value. In a deeper network the curve is zero at the reference, and the
    layers after the first are replaced by a straight line, as in the attribution.
    """
    first = network.kan_layers[0]
    low, high = min(first.span[0], contribution.value), max(first.span[1], contribution.value)
    points_P, added_P = edge_curve(
        first, contribution.feature, contribution.through, torch.linspace(low, high, num_points)
    )
    if len(network.kan_layers) > 1:
        _, reference_1 = edge_curve(first, contribution.feature, contribution.through, torch.zeros(1))
        added_P = added_P - reference_1
    return points_P, contribution.slope * added_P
