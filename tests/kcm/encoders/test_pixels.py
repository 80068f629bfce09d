"""Pixels are a picture's contrasts, whatever its brightness."""

import io

import numpy as np
import pytest
from PIL import Image

from kcm.encoders.pixels import PixelsConfig, PixelsEncoder
from kcm.inputs.content import Content


def picture(pixels: np.ndarray) -> Content:
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
    return Content(image=stream.getvalue())


def test_features_are_centred_unit_vectors_by_rows_of_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3))
    (vector,) = PixelsEncoder(PixelsConfig(side=4)).encode([picture(pixels)])
    centred = pixels.reshape(-1) - pixels.mean()
    np.testing.assert_allclose(vector, centred / np.linalg.norm(centred), atol=1e-6)
    assert vector.dtype == np.float32


def test_grey_is_one_feature_per_pixel() -> None:
    encoder = PixelsEncoder(PixelsConfig(side=2, color="grey"))
    green_left = np.array([[[0, 255, 0], [255, 0, 0]]] * 2)
    (vector,) = encoder.encode([picture(green_left)])
    assert vector.shape == (encoder.dim,) == (4,)
    assert vector[0] > vector[1]  # green is the lighter one


def test_a_brighter_copy_is_the_same_and_a_blank_picture_is_zero() -> None:
    pixels = np.random.default_rng(0).integers(0, 100, (4, 4, 3))
    first, brighter, blank = PixelsEncoder(PixelsConfig(side=4)).encode(
        [picture(pixels), picture(2 * pixels + 30), picture(np.full((4, 4, 3), 200))]
    )
    np.testing.assert_allclose(first, brighter, atol=1e-6)
    assert not blank.any()


@pytest.mark.parametrize("options", [{"side": 5}, {"color": "grey"}])
def test_what_changes_the_features_changes_the_identity(options: dict) -> None:
    assert PixelsEncoder(PixelsConfig(**options)).identity != PixelsEncoder(PixelsConfig()).identity
    assert PixelsEncoder(PixelsConfig(batch_size=1)).identity == PixelsEncoder(PixelsConfig()).identity
