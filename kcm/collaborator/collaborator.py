"""The collaborator: the small side of the cascade, a judge and a small model over the same frozen features."""

from __future__ import annotations

import copy
from typing import Literal

from pydantic import Field, field_validator
from torch import Tensor, nn

from kcm.collaborator.mixing import Mixing
from kcm.collaborator.normalizer import FrozenNormalizer, UnitNormalizer
from kcm.config import Config
from kcm.kan import KAN, MLP, RandomReLU

CollaboratorName = Literal["kcm", "mcm"]  # a KAN, and the control of as many parameters
NetworkKind = Literal["kan", "mlp", "random_relu", "linear"]


class NetworkConfig(Config):
    """Shape of the judge and of the small model; an MLP takes the widths that match the KAN's parameter count."""

    hidden: tuple[int, ...] = Field((16,), description="Widths of the KAN's hidden layers; empty for a single layer.")
    grid_size: int = Field(5, ge=1, description="Intervals of the spline grid.")
    spline_order: int = Field(3, ge=1, le=3, description="Degree of the spline.")
    grid_range: tuple[float, float] = Field((-3.0, 3.0), description="Ends of the grid, in normalised feature units.")
    scaling: Literal["unit", "first_task"] = Field("unit", description="How features are scaled before the networks.")
    mixing: int = Field(
        0,
        ge=0,
        description="Frozen random projections of the features, which the networks see in their place; 0: none.",
    )
    shared: bool = Field(False, description="Judge and small are one network (an ablation).")
    mlp_width: int | None = Field(
        None, ge=1, description="Width of an MLP's hidden layers; null: as many parameters as the KAN."
    )

    @field_validator("hidden")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(width < 1 for width in value):
            raise ValueError("widths must be positive")
        return value


class Collaborator(nn.Module):
    """Judge `F_j` and small model `F_s` of KCM (arXiv 2510.20278), which start as copies.

    `kind="mlp"` gives MCM, the control: everything equal but the networks, with as many parameters. Where networks
    are fitted in closed form, and an MLP cannot be, the control is `kind="random_relu"`. `kind="linear"` is the
    baseline without a hidden layer.
    """

    def __init__(self, in_features: int, num_labels: int, network: NetworkConfig, kind: NetworkKind, seed: int) -> None:
        super().__init__()
        self.in_features, self.num_labels, self.kind, self.network = in_features, num_labels, kind, network
        self.normalizer = FrozenNormalizer(in_features) if network.scaling == "first_task" else UnitNormalizer()
        self.mixing = Mixing(in_features, network.mixing, seed) if network.mixing else nn.Identity()
        self.judge = build_network(network.mixing or in_features, num_labels, network, kind, seed)
        self.small = self.judge if network.shared else copy.deepcopy(self.judge)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Judge and small by name; only the judge where they are one network."""
        return {"judge": self.judge} if self.network.shared else {"judge": self.judge, "small": self.small}

    def forward(self, features_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Judge and small logits, each [N, num_labels], from raw encoder features [N, in_features]."""
        inputs_NM = self.inputs(features_ND)
        judge_NC = self.judge(inputs_NM)
        return judge_NC, judge_NC if self.network.shared else self.small(inputs_NM)

    def inputs(self, features_ND: Tensor) -> Tensor:
        """The inputs of the networks: raw features scaled, and mixed where configured."""
        return self.mixing(self.normalizer(features_ND))  # type: ignore[no-any-return]

    def export(self) -> Collaborator:
        """The same functions without gradients, KANs in their serving form: the fastest answers that a CPU gives."""
        exported = copy.deepcopy(self).requires_grad_(False)
        for name, network in self.networks.items():
            if isinstance(network, KAN):
                setattr(exported, name, network.export())
        if self.network.shared:
            exported.small = exported.judge
        return exported


def build_network(in_features: int, num_labels: int, network: NetworkConfig, kind: NetworkKind, seed: int) -> nn.Module:
    """A KAN of the configured widths, the control of its kind that matches it, or a linear map.

    The MLP has the KAN's depth, at least one hidden layer, and the width that `network.mlp_width` gives or that brings
    its parameter count closest to the KAN's.
    """
    if kind == "linear":
        return MLP([in_features, num_labels], seed=seed)
    if kind == "mlp" and network.mlp_width is not None:
        return MLP([in_features, *[network.mlp_width] * max(1, len(network.hidden)), num_labels], seed=seed)
    kan = KAN(
        [in_features, *network.hidden, num_labels],
        grid_size=network.grid_size,
        spline_order=network.spline_order,
        grid_range=network.grid_range,
        seed=seed,
    )
    if kind == "kan":
        return kan
    return MLP.matching(kan, seed=seed) if kind == "mlp" else RandomReLU.matching(kan, seed=seed)
