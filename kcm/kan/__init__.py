"""Kolmogorov–Arnold networks.

The network itself is exported here. Inspection has one module per view: `curves`, `attribution`, `plotting`.
"""

from kcm.kan.mixed_splines import MixedSplines
from kcm.kan.mlp import MLP, num_parameters
from kcm.kan.network import KAN, KANLinear
from kcm.kan.random_relu import RandomQuadratic, RandomReLU

__all__ = ["KAN", "MLP", "KANLinear", "MixedSplines", "RandomQuadratic", "RandomReLU", "num_parameters"]
