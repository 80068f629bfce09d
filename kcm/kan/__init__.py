"""Kolmogorov–Arnold networks, exported here; `kcm.kan.inspect` shows what they have learned."""

from kcm.kan.layer import KANLinear
from kcm.kan.mixed_splines import MixedSplines
from kcm.kan.mlp import MLP, num_parameters
from kcm.kan.network import KAN
from kcm.kan.random_relu import RandomQuadratic, RandomReLU

__all__ = ["KAN", "MLP", "KANLinear", "MixedSplines", "RandomQuadratic", "RandomReLU", "num_parameters"]
