"""Networks and inputs of a collaborator as explanations use them.

Shapes: N rows, D features of the encoder, I inputs of the networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kcm.bundle.bundle import Bundle
from kcm.collaborator.collaborator import Collaborator
from kcm.errors import ConfigError, DataError
from kcm.kan.inspect.curves import CurveNetwork


def with_curves(network: nn.Module) -> CurveNetwork:
    """The network as one that is made of curves; raise ConfigError for another."""
    if isinstance(network, CurveNetwork):
        return network
    raise ConfigError(
        f"the collaborator's networks are of the kind {type(network).__name__}, which has no edge functions to show",
        hint="Explain a KCM bundle of splines or quadratic units",
    )


def networks_with_curves(collaborator: Collaborator) -> dict[str, CurveNetwork]:
    """Judge and small model by name, only the judge where they are one network; none where they have no curves."""
    return {name: network for name, network in collaborator.networks.items() if isinstance(network, CurveNetwork)}


@torch.inference_mode()
def network_inputs(collaborator: Collaborator, features_ND: NDArray[np.float32] | Tensor) -> Tensor:
    """What the networks see of encoder features: scaled, and mixed where there is mixing, [N, I], on their device.

    Raise DataError for features that are not finite.
    """
    features = torch.as_tensor(features_ND).to(next(collaborator.parameters()).device)
    if not features.isfinite().all():
        raise DataError("the encoder gave features that are not finite", where="explain")
    return collaborator.inputs(features)


@torch.inference_mode()
def base_logits(collaborator: Collaborator, features_ND: NDArray[np.float32] | Tensor) -> Tensor:
    """What the networks are added to, [N, C]: zero without a base."""
    features = torch.as_tensor(features_ND).to(next(collaborator.parameters()).device)
    if collaborator.base is None:
        return features.new_zeros(len(features), collaborator.num_labels)
    return collaborator.base(features)  # type: ignore[no-any-return]


def known_rows(bundle: Bundle) -> Tensor | None:
    """The networks' inputs [N, I] of rows that the bundle holds: a sample of every task in the learner's memory.

    Of a learner without a memory, the certify rows that traffic is compared with; None where there are neither.
    """
    state: Mapping[str, Any] = bundle.learner_state
    features_ND = state.get("memory", {}).get("features")
    if features_ND is None and bundle.drift is not None:
        features_ND = bundle.drift.distance.rows_RD
    return None if features_ND is None else network_inputs(bundle.collaborator, features_ND)
