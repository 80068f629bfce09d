"""EfficientNet-Lite: the published sizes, any resolution, and what a folder without it says."""

import pytest
import torch

from kcm.encoders.efficientnet import EfficientNetLite


@pytest.mark.parametrize(
    ("width", "depth", "millions"),
    [(1.0, 1.0, 4.7), (1.0, 1.1, 5.4), (1.1, 1.2, 6.1), (1.2, 1.4, 8.2), (1.4, 1.8, 13.0)],
)
def test_the_variants_have_the_published_number_of_parameters(width, depth, millions):
    # Lite0 to Lite4 of the authors' table, which counts the 1,000 classes with their biases.
    backbone = sum(parameter.numel() for parameter in EfficientNetLite(width, depth).parameters())
    assert round((backbone + 1280 * 1000 + 1000) / 1e6, 1) == millions


def test_any_resolution_gives_one_vector_per_picture():
    model = EfficientNetLite(0.25, 0.25, hidden_size=32).eval()
    for side in (28, 65, 96):
        assert model(torch.zeros(2, 3, side, side)).shape == (2, 32)
