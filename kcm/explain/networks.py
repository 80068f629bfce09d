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

from kcm.collaborator.collaborator import Collaborator
from kcm.errors import ConfigError, DataError
from kcm.kan import KAN


def kan_of(network: nn.Module) -> KAN:
    """The network as a KAN; raise ConfigError for an MLP, which has no curves to show."""
    if isinstance(network, KAN):
        return network
    raise ConfigError("the collaborator is an MLP, which has no edge functions to show", mend="Explain a KCM bundle")


def networks_with_curves(collaborator: Collaborator) -> dict[str, KAN]:
    """Judge and small model by name, only the judge where they are one network; none where they are not KANs."""
    return {name: network for name, network in collaborator.networks.items() if isinstance(network, KAN)}


@torch.inference_mode()
def network_inputs(collaborator: Collaborator, features_ND: NDArray[np.float32] | Tensor) -> Tensor:
    """What the networks see of encoder features: scaled, and mixed where there is mixing, [N, I], on their device.

    Raise DataError for features that are not finite.
    """
    features = torch.as_tensor(features_ND).to(next(collaborator.parameters()).device)
    if not features.isfinite().all():
        raise DataError("the encoder gave features that are not finite", where="explain")
    return collaborator.inputs(features)


def remembered_rows(learner_state: Mapping[str, Any], collaborator: Collaborator) -> Tensor | None:
    """The networks' inputs [N, I] of the rows in the memory, a sample of every task; None without a memory."""
    features_ND = learner_state.get("memory", {}).get("features")
    return None if features_ND is None else network_inputs(collaborator, features_ND)
