"""Why the collaborator said what it said of one input: the features that moved a logit most, and through which edge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kcm.collaborator import Collaborator
from kcm.errors import ConfigError, DataError
from kcm.kan import KAN
from kcm.kan.attribution import attribution, importance


@dataclass(frozen=True)
class Contribution:
    """What one encoder feature added to a logit.

    `value` is the feature as the network sees it, after the normaliser. `through` is the output of the first layer
    that the feature's most important edge leads to; in a network of one layer that is the label itself.
    """

    feature: int
    value: float
    contribution: float
    through: int


@dataclass(frozen=True)
class Explanation:
    """The contributions to the logit of `label`, the largest first; `rest` is what all other features added.

    `baseline` is the logit of the reference input (zero in a network of one layer), so that
    logit = baseline + sum of contributions + rest. `exact` says whether each share is exact, as in a network of one
    layer, or DeepLIFT's approximation (see `kcm.kan.attribution`).
    """

    label: int
    logit: float
    baseline: float
    contributions: tuple[Contribution, ...]
    rest: float
    exact: bool


def explain(network: KAN, probe_NI: Tensor, x_I: Tensor, label: int, top: int = 10) -> Explanation:
    """The `top` largest contributions, by size, to the logit of `label` for the scaled input `x_I` [I].

    `probe_NI` are scaled rows on which the importance of edges is judged. Raise DataError for inputs of another width,
    ConfigError for a label that does not exist.
    """
    if not 0 <= label < network.widths[-1]:
        raise ConfigError(f"label = {label}", where="explain", mend=f"It must be from 0 to {network.widths[-1] - 1}")
    shares = attribution(network, x_I.unsqueeze(0))
    share_I = shares.contributions[0, label]
    first_OI = importance(network, probe_NI)[0]
    exact = len(network.kan_layers) == 1
    chosen = share_I.abs().argsort(descending=True, stable=True)[:top].tolist()
    contributions = tuple(
        Contribution(i, float(x_I[i]), float(share_I[i]), label if exact else int(first_OI[:, i].argmax()))
        for i in chosen
    )
    total, baseline = float(share_I.sum()), float(shares.baseline[label])
    rest = total - sum(each.contribution for each in contributions)
    return Explanation(label, baseline + total, baseline, contributions, rest, exact)


def kan_of(network: nn.Module) -> KAN:
    """The network as a KAN; raise ConfigError for an MLP, which has no curves to show."""
    if isinstance(network, KAN):
        return network
    raise ConfigError("the collaborator is an MLP, which has no edge functions to show", mend="Explain a KCM bundle")


def remembered_rows(learner_state: Mapping[str, Any], collaborator: Collaborator) -> Tensor | None:
    """The scaled features [N, D] of the rows in the learner's memory, a sample of every task; None without a memory."""
    features_ND = learner_state.get("memory", {}).get("features")
    return None if features_ND is None else scaled(collaborator, features_ND)


@torch.inference_mode()
def scaled(collaborator: Collaborator, features_ND: Tensor) -> Tensor:
    """Encoder features [N, D] as the networks see them; raise DataError where they are not finite."""
    if not features_ND.isfinite().all():
        raise DataError("the encoder gave features that are not finite", where="explain")
    scaled_ND: Tensor = collaborator.normalizer(features_ND)
    return scaled_ND
