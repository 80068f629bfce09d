"""Networks and inputs of a collaborator, as explanations need them.

Shapes: N rows, D features of the encoder, I inputs of the networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.bundle.bundle import Bundle
from kcm.collaborator.collaborator import Collaborator
from kcm.errors import ConfigError, DataError
from kcm.kan.inspect import CurveNetwork, attribution


def with_curves(network: nn.Module) -> CurveNetwork:
    """The network, if it consists of curves. Raises ConfigError if not."""
    if isinstance(network, CurveNetwork):
        return network
    raise ConfigError(
        f"the collaborator's networks, {type(network).__name__}, have no edge functions to show",
        hint="Explain a bundle of KCM or of quadratic features",
    )


def networks_with_curves(collaborator: Collaborator) -> dict[str, CurveNetwork]:
    """Judge and small model by name; only the judge if they are one network, and none if they have no curves."""
    return {name: network for name, network in collaborator.networks.items() if isinstance(network, CurveNetwork)}


@torch.inference_mode()
def network_inputs(collaborator: Collaborator, features_ND: NDArray[np.float32] | Tensor) -> Tensor:
    """The networks' inputs for encoder features, scaled and (if configured) mixed: [N, I], on the networks' device.

    Raises DataError for features that are not finite.
    """
    features = torch.as_tensor(features_ND).to(next(collaborator.parameters()).device)
    if not features.isfinite().all():
        raise DataError("the encoder gave features that are not finite", where="explain")
    return collaborator.inputs(features)


@torch.inference_mode()
def base_logits(collaborator: Collaborator, features_ND: NDArray[np.float32] | Tensor) -> Tensor:
    """The logits that the networks add to, [N, C]: zero without a base."""
    features = torch.as_tensor(features_ND).to(next(collaborator.parameters()).device)
    if collaborator.base is None:
        return features.new_zeros(len(features), collaborator.num_labels)
    return collaborator.base(features)


def known_rows(bundle: Bundle) -> Tensor | None:
    """The networks' inputs [N, I] of rows in the bundle: a sample of every task in the learner's memory.

    Without a memory, a sample of the certify rows; None if there are none.
    """
    state: Mapping[str, Any] = bundle.learner_state
    features_ND = state.get("memory", {}).get("features")
    if features_ND is None:
        features_ND = bundle.certify_rows
    return None if features_ND is None else network_inputs(bundle.collaborator, features_ND)


_COLOURS = ("red", "green", "blue")


def _pixel_grid(bundle: Bundle) -> tuple[int, int, int] | None:
    """Rows, columns and colours of an encoder whose features are pixels, colours innermost."""
    return getattr(bundle.encoder, "pixel_grid", None)


def feature_name(bundle: Bundle, feature: int) -> str:
    """The name of a curve's input: a feature, a topic of words, a pixel by its position, or a projection."""
    collaborator = bundle.collaborator
    if collaborator.network.projects:
        return f"mixture {feature}"
    if feature >= collaborator.in_features:
        return f"direction {feature - collaborator.in_features}"
    if feature >= (first_topic := collaborator.in_features - collaborator.num_words):
        return f"topic {feature - first_topic} of words"
    grid = _pixel_grid(bundle)
    if grid is None:
        return f"feature {feature}"
    _, columns, colours = grid
    place, colour = divmod(feature, colours)
    row, column = divmod(place, columns)
    return f"pixel {row + 1}, {column + 1}" + (f", {_COLOURS[colour]}" if colours == len(_COLOURS) else "")


@torch.inference_mode()
def heat_map(bundle: Bundle, features_D: NDArray[np.float32], max_side: int = 32) -> Tensor | None:
    """Each pixel's contribution to the judge's logit of its answer, [S, S].

    If a side has more than `max_side` pixels, neighbouring pixels are summed. None if features are not pixels, or if
    the judge has no curves or sees mixtures of pixels. The shares come from `kcm.kan.inspect` and are exact
    for one layer of splines. A quadratic unit's share is split over the pixels by DeepLIFT's rule. The base's
    contribution is not included.
    """
    judge, grid = bundle.collaborator.judge, _pixel_grid(bundle)
    if grid is None or not isinstance(judge, CurveNetwork) or bundle.collaborator.network.projects:
        return None
    inputs_1I = network_inputs(bundle.collaborator, features_D[None])
    judged = int((judge(inputs_1I) + base_logits(bundle.collaborator, features_D[None])).argmax())
    share_I = judge.passed_back(attribution(judge, inputs_1I).contributions[0, judged], inputs_1I[0])
    pixels_SS = share_I.view(grid).sum(-1)
    block = -(-max(grid[:2]) // max_side)
    return F.avg_pool2d(pixels_SS[None, None], block, ceil_mode=True, divisor_override=1)[0, 0]
