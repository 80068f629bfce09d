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
from kcm.explain.networks import base_logits, network_inputs
from kcm.kan.inspect.attribution import attribution
from kcm.kan.inspect.curves import CurveNetwork

_COLOURS = ("red", "green", "blue")


def feature_name(bundle: Bundle, feature: int) -> str:
    """The name of an input of the curves: a feature, by its place where it has one, or a projection of all features."""
    collaborator = bundle.collaborator
    if collaborator.network.projects:
        return f"mixture {feature}"
    if feature >= collaborator.in_features:
        return f"direction {feature - collaborator.in_features}"
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

    None where features are no pixels, or the judge has no curves or sees mixtures of them. The shares are those of
    `kcm.kan.inspect.attribution`, exact in one layer of splines; what quadratic units add by a direction is split over
    the pixels by DeepLIFT's rule. What a base adds to the logit is not in them.
    """
    judge, grid = bundle.collaborator.judge, bundle.encoder.pixel_grid
    if grid is None or not isinstance(judge, CurveNetwork) or bundle.collaborator.network.projects:
        return None
    inputs_1I = network_inputs(bundle.collaborator, features_D[None])
    judged = int((judge(inputs_1I) + base_logits(bundle.collaborator, features_D[None])).argmax())
    share_I = judge.passed_back(attribution(judge, inputs_1I).contributions[0, judged], inputs_1I[0])
    pixels_SS = share_I.view(grid).sum(-1)
    block = -(-max(grid[:2]) // most)
    return F.avg_pool2d(pixels_SS[None, None], block, ceil_mode=True, divisor_override=1)[0, 0]
