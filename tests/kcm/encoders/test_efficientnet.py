"""EfficientNet-Lite: the published sizes, any resolution, and what a folder without it says."""

import pytest

from kcm.encoders.efficientnet import EfficientNetLite


@pytest.mark.parametrize(
    ("width", "depth", "millions"),
    [(1.0, 1.0, 4.7), (1.0, 1.1, 5.4), (1.1, 1.2, 6.1), (1.2, 1.4, 8.2), (1.4, 1.8, 13.0)],
)
def test_the_variants_have_the_published_number_of_parameters(width, depth, millions):
    # Lite0 to Lite4 of the authors' table, which counts the 1,000 classes with their biases.
    backbone = sum(parameter.numel() for parameter in EfficientNetLite(width, depth).parameters())
    assert round((backbone + 1280 * 1000 + 1000) / 1e6, 1) == millions
