"""The collaborator: the small side of the cascade, a judge and a small model over the same frozen features."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from kcm.collaborator.class_base import BaseKind, ClassBase
from kcm.collaborator.normalizer import FrozenNormalizer, Mixing, UnitNormalizer
from kcm.collaborator.outputs import output_names, resize_outputs, start_outputs
from kcm.config import Config
from kcm.kan import KAN, MLP, MixedSplines, RandomQuadratic, RandomReLU
from kcm.kan.basis import Grid
from kcm.kan.layer import BaseActivation
from kcm.kan.mixed_splines import MIN_FREE

CollaboratorName = Literal["kcm", "mcm", "linear"]  # a KAN; an MLP with as many parameters; logistic regression
NetworkKind = Literal["kan", "mlp", "random_relu", "linear"]
Basis = Literal["auto", "spline", "pspline", "quadratic", "relu"]
BASES: tuple[Basis, ...] = ("pspline", "quadratic")  # that `auto` chooses from

_NAMES: Mapping[str, tuple[CollaboratorName, str]] = {  # and form, by kind or by the basis of kind "kan"
    "mlp": ("mcm", "MLP"),
    **dict.fromkeys(("random_relu", "relu"), ("mcm", "random ReLU")),
    "quadratic": ("kcm", "quadratic"),
    "linear": ("linear", ""),
}


class NetworkConfig(Config):
    """Shape of the judge and of the small model; an MLP has the widths that match the KAN's parameter count."""

    hidden: tuple[PositiveInt, ...] = Field(
        (16,), description="Widths of the KAN's hidden layers; empty for a single layer."
    )
    grid_size: int = Field(5, ge=1, description="Intervals of the spline grid.")
    spline_order: int = Field(3, ge=1, le=3, description="Degree of the spline.")
    grid_range: tuple[float, float] = Field((-3.0, 3.0), description="Ends of the grid, in normalised feature units.")
    basis: Basis = Field(
        "spline",
        description="The curves of a KAN. pspline: penalised splines over `mixing` mixtures of the first task's rows, "
        "plus a linear part. quadratic: a parabola on each of `mixing` random projections, plus a linear part. auto: "
        "of these two with equally many coefficients, the one that is wrong on fewer left-out train rows of the first "
        "task, or pspline if the learner leaves none out. relu: random units, the control. All but spline are single "
        "layers.",
    )
    roughness: float = Field(
        0.01, ge=0, description="For pspline, the cost of a bend: penalty on third differences of the coefficients."
    )
    base_activation: BaseActivation = Field("silu", description="The base of a KAN's curves, added to the splines.")
    centred: bool = Field(
        False, description="Subtract from a KAN's splines their mean over normal inputs, and add a bias."
    )
    zero_start: bool = Field(
        False,
        description="Start a KAN's last layer, a linear map or weights on random units at zero; never for an MLP.",
    )
    scaling: Literal["unit", "first_task"] = Field(
        "unit", description="Scaling of features: by row, or by the first task."
    )
    mixing: int = Field(
        0,
        ge=0,
        description="Number of frozen random projections that replace the features as inputs; 0: none.",
    )
    base: BaseKind = Field(
        "none",
        description="Logits that networks add to: from the nearest class mean, or from linear discriminant analysis.",
    )
    shared: bool = Field(False, description="Use one network as judge and small model (an ablation).")
    mlp_width: int | None = Field(
        None, ge=1, description="Width of an MLP's hidden layers; null: as many parameters as the KAN."
    )

    @model_validator(mode="after")
    def _projections(self) -> NetworkConfig:
        if self.basis != "spline" and (self.hidden or not self.mixing):
            raise ValueError(
                f"basis: {self.basis} is a single layer on random projections: give hidden: [] and mixing, such as 2688"
            )
        if self.basis in ("auto", "pspline") and self.num_free < MIN_FREE:
            raise ValueError(
                f"grid_size {self.grid_size} and spline_order {self.spline_order} leave a curve {self.num_free} free"
                f" coefficients: give grid_size + spline_order = {MIN_FREE + 2} or more"
            )
        return self

    @property
    def num_free(self) -> int:
        """Coefficients that an edge's spline learns in addition to a line and a constant; other units have none."""
        return 0 if self.basis in ("quadratic", "relu") else max(0, self.grid_size + self.spline_order - 2)

    def with_basis(self, basis: Basis) -> NetworkConfig:
        """The same with a basis in place of `auto`: parabolas are as many as the coefficients of the splines."""
        mixing = self.mixing * self.num_free if basis == "quadratic" else self.mixing
        return self.model_copy(update={"basis": basis, "mixing": mixing})

    @property
    def without_additions(self) -> NetworkConfig:
        """The same without a base and without mixed inputs, for networks that must see the features as they are."""
        return self.model_copy(update={"base": "none", "mixing": 0 if self.projects else self.mixing})

    @property
    def projects(self) -> bool:
        """Whether the features are mixed before the networks; other bases have their own projections."""
        return self.mixing > 0 and self.basis == "spline"


class Collaborator(nn.Module):
    """Judge `F_j` and small model `F_s` of KCM (arXiv 2510.20278), which start as copies.

    `kind="mlp"` gives MCM, the control: everything is equal except the networks, which have as many parameters. If
    networks are fitted in closed form, MCM is `kind="random_relu"`: an MLP whose hidden layer is never trained.
    `kind="linear"` is the baseline without a hidden layer. With a `network.base`, both networks are added to its
    logits. The last `num_words` features are topics of words: networks of frozen units are linear in them. Networks
    with `basis: auto` have splines until `choose_basis`.
    """

    def __init__(
        self,
        in_features: int,
        num_labels: int,
        network: NetworkConfig,
        kind: NetworkKind,
        seed: int,
        num_words: int = 0,
    ) -> None:
        super().__init__()
        self.in_features, self.num_labels, self.kind, self.network = in_features, num_labels, kind, network
        self.seed, self.num_words = seed, num_words
        frozen = network.scaling == "first_task"
        self.normalizer = FrozenNormalizer(in_features) if frozen else UnitNormalizer(num_words)
        self.mixing = Mixing(in_features, network.mixing, seed) if network.projects else nn.Identity()
        self.base = None if network.base == "none" else ClassBase(in_features, num_labels, network.base)
        self._build()

    def _build(self) -> None:
        network, projects = self.network, self.network.projects
        num_inputs, num_linear = (network.mixing, 0) if projects else (self.in_features, self.num_words)
        self.judge = build_network(num_inputs, self.num_labels, network, self.kind, self.seed, num_linear)
        self.small = self.judge if network.shared else copy.deepcopy(self.judge)

    def choose_basis(self, basis: Basis) -> None:
        """Give a KAN whose basis is `auto` this basis; splines stay as they are, with their fitted mixtures."""
        if self.network.basis == basis or self.kind != "kan":
            return
        device, self.network = next(self.parameters()).device, self.network.with_basis(basis)
        if basis != "pspline":
            self._build()
            self.to(device)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Judge and small model by name; only the judge if both are one network."""
        return {"judge": self.judge} if self.network.shared else {"judge": self.judge, "small": self.small}

    def forward(self, features_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Judge and small logits, each [N, num_labels], from raw encoder features [N, in_features]."""
        inputs_NM = self.inputs(features_ND)
        if isinstance(self.judge, KAN) and isinstance(self.small, KAN) and self.small is not self.judge:
            logits = self.judge.side_by_side([self.small], inputs_NM)
        else:
            logits = [network(inputs_NM) for network in self.networks.values()]
        if self.base is not None:
            base_NC = self.base(features_ND)
            logits = [network_NC + base_NC for network_NC in logits]
        return logits[0], logits[-1]

    def resize(self, num_labels: int) -> None:
        """Append outputs of zeros, or drop the last ones, so that each of the first `num_labels` labels has one."""
        for network in self.networks.values():
            resize_outputs(network, num_labels)
        if self.base is not None:
            self.base.resize(num_labels)
        self.num_labels = num_labels

    def start_outputs(self, labels: Iterable[int]) -> None:
        """Set the outputs of labels to their start, which depends only on seed and label."""
        labels, zero = list(labels), self.network.zero_start and self.kind != "mlp"
        for network in self.networks.values():
            start_outputs(network, labels, self.seed, zero=zero)

    @property
    def output_names(self) -> set[str]:
        """Names of the networks' tensors with one row per label."""
        parts = {"judge": self.judge, "small": self.small}
        return {f"{part}.{name}" for part, network in parts.items() for name in output_names(network)}

    def inputs(self, features_ND: Tensor) -> Tensor:
        """The inputs of the networks: raw features, scaled and (if configured) mixed."""
        return self.mixing(self.normalizer(features_ND))

    def fit_mixtures(
        self, batches: Iterable[Tensor], add_up: Callable[[list[Tensor]], None] = lambda sums: None
    ) -> None:
        """Fit the mixtures under the curves to raw features [n, D] of the first task; see `MixedSplines.fit`."""
        if isinstance(self.judge, MixedSplines):
            self.judge.fit(map(self.inputs, batches), add_up)
            if isinstance(self.small, MixedSplines) and self.small is not self.judge:
                self.small.mix_as(self.judge)

    @property
    def name(self) -> CollaboratorName:
        """The name of this kind of network: KCM for a KAN, or the name of a control."""
        return self._named[0]

    @property
    def form(self) -> str:
        """What stands beside the name: the basis of KCM, or which units MCM has."""
        return self._named[1]

    @property
    def _named(self) -> tuple[CollaboratorName, str]:
        return _NAMES.get(self.network.basis if self.kind == "kan" else self.kind, ("kcm", "spline"))

    def merged(self) -> Collaborator:
        """This collaborator with one network if judge and small have ended up equal, or unchanged if not.

        They start as copies, and only distillation separates them. A search without distillation leaves them equal.
        """
        if self.network.shared or not _equal(self.judge, self.small):
            return self
        collaborator = copy.deepcopy(self)
        collaborator.network = self.network.model_copy(update={"shared": True})
        collaborator.small = collaborator.judge
        return collaborator


def _equal(module: nn.Module, other: nn.Module) -> bool:
    """Whether two networks of one architecture hold the same values."""
    other_state = other.state_dict()
    return all(torch.equal(tensor, other_state[name]) for name, tensor in module.state_dict().items())


def build_network(
    in_features: int, num_labels: int, network: NetworkConfig, kind: NetworkKind, seed: int, num_linear: int = 0
) -> nn.Module:
    """A KAN of the configured widths, the control of its kind that matches it, or a linear map.

    Networks of frozen units are linear in the last `num_linear` inputs.

    The MLP has the KAN's depth and at least one hidden layer. Its width is `network.mlp_width`; if that is null, the
    width that brings its parameter count closest to the KAN's.
    """
    module = _network(in_features, num_labels, network, kind, seed, num_linear)
    if network.zero_start and kind != "mlp" and not isinstance(module, KAN):  # a KAN starts its last layer itself
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
    return module


def _network(
    in_features: int, num_labels: int, network: NetworkConfig, kind: NetworkKind, seed: int, num_linear: int
) -> nn.Module:
    if kind == "linear":
        return MLP([in_features, num_labels], seed=seed)
    if kind == "mlp" and network.mlp_width is not None:
        return MLP([in_features, *[network.mlp_width] * max(1, len(network.hidden)), num_labels], seed=seed)
    kan = _kan(in_features, num_labels, network, seed, num_linear)
    if kind == "kan":
        return kan
    if kind == "mlp":
        return MLP.matching(kan, seed=seed)
    return RandomReLU.matching(kan, seed=seed)


def _kan(in_features: int, num_labels: int, network: NetworkConfig, seed: int, num_linear: int) -> KAN | RandomReLU:
    """The KAN, or the layer of another basis that replaces it."""
    sizes = in_features, network.mixing, num_labels
    if network.basis in ("auto", "pspline"):
        grid = Grid(network.grid_size, network.spline_order, *network.grid_range)
        return MixedSplines(*sizes, grid, network.roughness, seed=seed, num_linear=num_linear)
    if network.basis != "spline":
        units = RandomQuadratic if network.basis == "quadratic" else RandomReLU
        return units(*sizes, seed=seed, num_linear=num_linear)
    return KAN(
        [in_features, *network.hidden, num_labels],
        grid_size=network.grid_size,
        spline_order=network.spline_order,
        grid_range=network.grid_range,
        base_activation=network.base_activation,
        centred=network.centred,
        zero_start=network.zero_start,
        seed=seed,
    )
