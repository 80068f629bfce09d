"""A picture encoder gives what its model gives for the very pixels, and what cannot be read is named by position."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTImageProcessor, ViTModel

from kcm.encoders import encode_readable
from kcm.encoders.efficientnet import EfficientNetLite, load_efficientnet
from kcm.encoders.image import ImageEncoder, ImageEncoderConfig
from kcm.errors import ConfigError
from kcm.inputs.content import Content

SIDE = 16


def pictures(number: int) -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (number, SIDE, SIDE, 3), dtype=np.uint8)
    return [Image.fromarray(each) for each in pixels]


def content(image: Image.Image) -> Content:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return Content(image=stream.getvalue())


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    ViTModel(
        ViTConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=32,
            image_size=SIDE,
            patch_size=8,
            initializer_range=0.5,
        )
    ).save_pretrained(folder)
    ViTImageProcessor(
        size={"height": SIDE, "width": SIDE}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def efficientnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("efficientnet")
    torch.manual_seed(0)
    save_file(EfficientNetLite(0.25, 0.25, hidden_size=32).state_dict(), folder / "model.safetensors")
    config = {"model_type": "efficientnet-lite", "width": 0.25, "depth": 0.25, "hidden_size": 32}
    (folder / "config.json").write_text(json.dumps(config))
    preprocessor = {"image_mean": [127 / 255] * 3, "image_std": [128 / 255] * 3, "size": SIDE}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def encoder(folder: Path, **options: object) -> ImageEncoder:
    return ImageEncoder(ImageEncoderConfig(model=str(folder), **options), folder)  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_transformers_in_the_order_given(pooling: str, vit: Path) -> None:
    images = pictures(3)
    with torch.no_grad():
        pixels = ViTImageProcessor.from_pretrained(vit)(images, return_tensors="pt")["pixel_values"]
        hidden = ViTModel.from_pretrained(vit).eval()(pixels).last_hidden_state
    pooled = hidden[:, 0] if pooling == "cls" else hidden.mean(1)
    features = encoder(vit, pooling=pooling, batch_size=2).encode([content(image) for image in images])
    np.testing.assert_allclose(features, torch.nn.functional.normalize(pooled).numpy(), atol=1e-5)


def test_a_map_of_positions_is_averaged_and_has_no_first_token(tmp_path: Path) -> None:
    model = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"crop_size": {"height": 32, "width": 32}}')
    (image,) = pictures(1)
    pixels = torch.from_numpy(np.array(image.resize((32, 32), Image.Resampling.BICUBIC))).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = model(pixels / 127.5 - 1).last_hidden_state.mean((2, 3))
    features = encoder(tmp_path).encode([content(image)])
    np.testing.assert_allclose(features, torch.nn.functional.normalize(expected).numpy(), atol=1e-5)
    with pytest.raises(ConfigError, match="no first one"):
        encoder(tmp_path, pooling="cls")


def test_efficientnet_sees_pixels_as_it_was_trained_to(efficientnet: Path) -> None:
    (image,) = pictures(1)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.normalize(load_efficientnet(efficientnet)((pixels - 127) / 128))
    features = encoder(efficientnet).encode([content(image)])
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)


def test_another_resolution_is_another_encoder(efficientnet: Path) -> None:
    given = [content(image) for image in pictures(2)]
    own, named, fine = encoder(efficientnet), encoder(efficientnet, side=SIDE), encoder(efficientnet, side=40)
    np.testing.assert_array_equal(own.encode(given), named.encode(given))
    assert np.abs(own.encode(given) - fine.encode(given)).max() > 1e-3
    assert fine.identity != own.identity
    config = ImageEncoderConfig(model=str(efficientnet), side=40, batch_size=1)
    assert config.identity(efficientnet) == fine.identity == config.build(efficientnet).identity


def test_a_text_and_a_broken_file_leave_the_others(efficientnet: Path) -> None:
    image = encoder(efficientnet)
    good = content(pictures(1)[0])
    read = image.read(good)
    features, faults = encode_readable(image, [Content("a text"), read, Content(image=good.image[:60])])
    np.testing.assert_array_equal(features, image.encode([good]))
    assert faults[0] == "there is no image"
    assert faults[2].startswith("the image is damaged")


@pytest.mark.parametrize("folder", ["vit", "efficientnet"])
def test_pictures_have_the_same_vectors_in_either_runtime(folder, request, tmp_path):
    model = str(request.getfixturevalue(folder))
    inputs = [content(image) for image in pictures(5)]
    by_torch, by_onnx = (
        ImageEncoderConfig(model=model, side=SIDE, runtime=runtime).load(tmp_path).encode(inputs)
        for runtime in ("torch", "onnx")
    )
    np.testing.assert_allclose(by_onnx, by_torch, atol=1e-5)
