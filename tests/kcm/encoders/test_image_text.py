"""Pairs as features: pretrained dual encoders, what they share, and what they refuse."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kcm.encoders import image_text
from kcm.encoders.image_text import ImageTextConfig, ImageTower, PairEncoder, pair_features
from kcm.errors import ConfigError
from kcm.inputs.content import Content, UnreadableError
from tests.tiny_clip import save_clip


def picture(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 30), color).save(buffer, "PNG")
    return buffer.getvalue()


RED, BLUE = picture("red"), picture("blue")


class Side:
    """One side of a dual encoder, which counts what it is given; its vectors tell the length of the part."""

    dim, identity = 2, "side"

    def __init__(self, part: str) -> None:
        self.reads, self.seen = frozenset({part}), list[int]()
        self._part = part

    def read(self, content):
        return content

    def encode(self, inputs):
        self.seen.append(len(inputs))
        parts = [getattr(content, self._part) for content in inputs]
        if bad := {position: "damaged" for position, part in enumerate(parts) if part == b"bad"}:
            raise UnreadableError(bad)
        lengths = [[len(part), 1] if self._part == "image" else [1, len(part)] for part in parts]
        return np.array(lengths, dtype=np.float32).reshape(-1, 2)


@pytest.fixture
def sides() -> tuple[Side, Side]:
    return Side("image"), Side("text")


@pytest.fixture
def pairs(sides) -> PairEncoder:
    return PairEncoder(*sides, identity="identity")


def test_pair_features_are_products_and_their_sum():
    images, texts = np.array([[0.6, 0.8]], np.float32), np.array([[1.0, 0.0]], np.float32)
    np.testing.assert_allclose(pair_features(images, texts), [[0.6 * np.sqrt(2), 0.0, 0.6]], rtol=1e-6)


def test_what_inputs_share_is_embedded_once(sides, pairs):
    features = pairs.encode([Content("a", b"xx"), Content("bb", b"xx"), Content("a", b"y")])
    assert [side.seen for side in sides] == [[2], [2]]
    np.testing.assert_allclose(features[:, -1], [2 + 1, 2 + 2, 1 + 1])
    assert pairs.encode([]).shape == (0, 3) == (0, pairs.dim)


def test_every_input_with_a_bad_picture_is_named(pairs):
    with pytest.raises(UnreadableError) as caught:
        pairs.encode([Content("a", b"xx"), Content("b", b"bad"), Content("c", b"bad"), Content("d", b"y")])
    assert caught.value.faults == {1: "damaged", 2: "damaged"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"), ("red", "blue", "a"), max_tokens=8)


def test_clip_by_its_folder_gives_unit_vectors_and_pairs(clip, tmp_path):
    rows = [Content("a red", RED), Content("a blue", RED), Content("a red", BLUE)]
    images, texts = (
        ImageTextConfig(model=str(clip), max_length=8, output=part).build(tmp_path).encode(rows)
        for part in ("image", "text")
    )
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(texts[0], texts[2])
    pairs = ImageTextConfig(model=str(clip), max_length=8).build(tmp_path).encode(rows)
    np.testing.assert_allclose(pairs, pair_features(images, texts), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("output", ["pair", "image", "text"])
def test_content_read_one_by_one_is_encoded_equally(clip, tmp_path, output):
    encoder = ImageTextConfig(model=str(clip), max_length=8, output=output).build(tmp_path)
    rows = [Content("a red", RED), Content("a blue", BLUE), Content("a", RED)]
    ready = [encoder.read(row) for row in rows]
    assert all((row.pixels is None) == (output == "text") for row in ready)
    np.testing.assert_array_equal(encoder.encode(ready), encoder.encode(rows))


def test_a_pair_shares_its_sides_with_encoders_of_one_part(clip, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(image_text, "ImageTower", lambda *given: loaded.append(ImageTower(*given)) or loaded[-1])
    config = ImageTextConfig(model=str(clip), max_length=5)
    pair, image, text = (
        each.build(tmp_path) for each in (config, *(config.with_settings(output=part) for part in ("image", "text")))
    )
    assert loaded == [image]
    assert len({each.identity for each in (pair, image, text)}) == 3


def test_clip_refuses_more_tokens_than_it_takes(clip, tmp_path):
    with pytest.raises(ConfigError, match="max_length = 64, but the model takes 8 tokens"):
        ImageTextConfig(model=str(clip)).build(tmp_path)


def test_what_decides_the_features_decides_the_identity(clip, tmp_path):
    base = ImageTextConfig(model=str(clip), max_length=8)
    identity = base.identity(tmp_path)
    assert base.model_copy(update={"batch_size": 1}).identity(tmp_path) == identity
    for change in ({"output": "image"}, {"max_length": 6}):
        assert base.model_copy(update=change).identity(tmp_path) != identity


def test_a_pretrained_model_gives_the_same_in_either_runtime(clip, tmp_path):
    inputs = [Content("red", RED), Content("a blue square", BLUE)]
    by_torch, by_onnx = (
        ImageTextConfig(model=str(clip), max_length=8, runtime=runtime).load(tmp_path) for runtime in ("torch", "onnx")
    )
    np.testing.assert_allclose(by_onnx.encode(inputs), by_torch.encode(inputs), atol=1e-5)
    assert by_onnx.identity == by_torch.identity
    assert len(list(tmp_path.glob(".onnx/*/network.onnx"))) == 2
