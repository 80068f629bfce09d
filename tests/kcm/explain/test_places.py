"""Where a feature lies in a picture, and what each place adds."""

from typing import Any, Literal

import numpy as np
import pytest
import torch

from kcm.bundle.bundle import Bundle
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.encoders.pixels import PixelsConfig
from kcm.encoders.text import TextEncoderConfig
from kcm.explain.networks import feature_name, heat_map, network_inputs
from tests.kcm.bundle.test_bundle import bundle as any_bundle


def bundle(encoder: Any, dim: int, kind: str = "kan", hidden: tuple[int, ...] = (), **options: Any) -> Bundle:
    networks = Collaborator(dim, 2, NetworkConfig(hidden=hidden, **options), kind, seed=0)  # type: ignore[arg-type]
    return any_bundle(collaborator=networks.requires_grad_(False), label_names=("cat", "dog"), encoder=encoder)


def pixels(side: int, color: Literal["rgb", "grey"] = "rgb", **network: Any) -> Bundle:
    return bundle(PixelsConfig(side=side, color=color), side**2 * (3 if color == "rgb" else 1), **network)


def features(model: Bundle) -> np.ndarray:
    return np.random.default_rng(0).normal(size=model.collaborator.in_features).astype(np.float32)


def test_features_are_called_by_their_place() -> None:
    assert feature_name(pixels(4), 3 * (4 * 2 + 1) + 2) == "pixel 3, 2, blue"
    assert feature_name(pixels(4, "grey"), 4 * 2 + 1) == "pixel 3, 2"
    assert feature_name(pixels(4, mixing=9), 5) == "mixture 5"
    quadratic = pixels(4, mixing=9, basis="quadratic")
    assert feature_name(quadratic, 3 * (4 * 2 + 1) + 2) == "pixel 3, 2, blue"
    assert feature_name(quadratic, 48 + 5) == "direction 5"
    assert feature_name(bundle(TextEncoderConfig(model="stub"), 8), 5) == "feature 5"
    network = NetworkConfig(hidden=(), mixing=9, basis="quadratic")
    texts = any_bundle(collaborator=Collaborator(8, 3, network, "kan", seed=0, num_words=3))
    assert [feature_name(texts, feature) for feature in (4, 5, 8)] == ["feature 4", "topic 0 of words", "direction 0"]


@pytest.mark.parametrize("network", [{}, {"hidden": (4,)}, {"mixing": 40, "basis": "quadratic"}])
@pytest.mark.parametrize("color", ["rgb", "grey"])
def test_the_places_together_are_the_logit(network: dict[str, Any], color: Any) -> None:
    model = pixels(5, color, **network)
    x_D = features(model)
    heat = heat_map(model, x_D)
    assert heat is not None
    assert heat.shape == (5, 5)
    judge, inputs = model.collaborator.judge, network_inputs(model.collaborator, x_D[None])
    logit_C, baseline_C = judge(inputs)[0], judge(torch.zeros_like(inputs))[0] if network else torch.zeros(2)
    label = int(logit_C.argmax())
    assert float(heat.sum() + baseline_C[label]) == pytest.approx(float(logit_C[label]), abs=1e-4)


def test_a_change_of_one_pixel_moves_its_own_place_alone() -> None:
    model = pixels(4)
    x_D = features(model)
    before = heat_map(model, x_D)
    moved = x_D.copy()
    moved[3 * (4 * 2 + 1) : 3 * (4 * 2 + 1) + 3] *= -1  # of the same length, so that scaling changes no other
    after = heat_map(model, moved)
    assert before is not None
    assert after is not None
    assert ((after - before).abs() > 1e-5).nonzero().tolist() == [[2, 1]]


def test_many_pixels_are_shown_together_and_none_is_lost() -> None:
    model = pixels(7, "grey")
    x_D = features(model)
    whole, blocks = heat_map(model, x_D), heat_map(model, x_D, max_side=3)
    assert whole is not None
    assert blocks is not None
    assert blocks.shape == (3, 3)
    assert float(blocks[0, 0]) == pytest.approx(float(whole[:3, :3].sum()), abs=1e-5)
    assert float(blocks.sum()) == pytest.approx(float(whole.sum()), abs=1e-4)


def test_without_places_or_curves_there_is_no_map() -> None:
    for model in (pixels(3, kind="mlp"), pixels(3, mixing=5), bundle(TextEncoderConfig(model="stub"), 8)):
        assert heat_map(model, features(model)) is None
