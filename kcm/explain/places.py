"""The place of a feature in the input, for encoders of pixels.

Shapes: N inputs, D features, I inputs of the networks, S pixels of a side.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kcm.bundle.bundle import Bundle
from kcm.explain.networks import network_inputs
from kcm.kan import KAN
from kcm.kan.inspect.attribution import attribution

_COLOURS = ("red", "green", "blue")


def feature_name(bundle: Bundle, feature: int) -> str:
    """The name of an input of the networks."""
    if bundle.collaborator.network.mixing:
        return f"mixture {feature}"
    grid = bundle.encoder.pixel_grid
    if grid is None:
        return f"feature {feature}"
    _, columns, colours = grid
    place, colour = divmod(feature, colours)
    row, column = divmod(place, columns)
    return f"pixel {row + 1}, {column + 1}" + (f", {_COLOURS[colour]}" if colours == len(_COLOURS) else "")


@torch.inference_mode()
def heat_map(bundle: Bundle, features_D: NDArray[np.float32], most: int = 32) -> Tensor | None:
    """What each pixel adds to the judge's logit of its answer, [S, S]; beyond `most` a side, several pixels together.

    None where features are no pixels, or the judge is no KAN or sees mixtures of them. The shares are those of
    `kcm.kan.inspect.attribution`: exact in a network of one layer.
    """
    judge, grid = bundle.collaborator.judge, bundle.encoder.pixel_grid
    if grid is None or not isinstance(judge, KAN) or bundle.collaborator.network.mixing:
        return None
    inputs_1I = network_inputs(bundle.collaborator, features_D[None])
    share_I = attribution(judge, inputs_1I).contributions[0, int(judge(inputs_1I).argmax())]
    pixels_SS = share_I.view(grid).sum(-1)
    block = -(-max(grid[:2]) // most)
    return F.avg_pool2d(pixels_SS[None, None], block, ceil_mode=True, divisor_override=1)[0, 0]
