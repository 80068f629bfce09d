"""Kolmogorov–Arnold networks: the basis, the layer, the network, and the ways to see inside."""

from kcm.kan.layer import KANLinear
from kcm.kan.mlp import MLP, num_parameters
from kcm.kan.network import KAN

__all__ = ["KAN", "MLP", "KANLinear", "num_parameters"]
