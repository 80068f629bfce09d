"""Dual encoders: pictures and texts as unit vectors of one space, whose inner product measures how well they match.

Shapes: N inputs, B inputs of a batch, K dimensions of the common space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kcm.encoders.config import Arrays, NetworkEncoderConfig
from kcm.encoders.network_encoder import NetworkEncoder
from kcm.encoders.pretrained import load_image_processor, load_tokenizer, load_whole
from kcm.encoders.torch_network import Exportable, dtype_of
from kcm.errors import AssetError, ConfigError
from kcm.inputs.content import PROBE, Content, contents
from kcm.inputs.pictures import upright


class ImageTower(NetworkEncoder):
    """The picture side of a dual encoder of transformers, such as CLIP or SigLIP, with its own image processor.

    Raises AssetError if the folder holds no such model.
    """

    def __init__(self, config: NetworkEncoderConfig, folder: Path, assets_dir: Path, device: str) -> None:
        self._folder = folder
        super().__init__(config, assets_dir, device)

    def arrays(self, inputs: Sequence[Content]) -> Arrays:
        return {"pixel_values": np.array([content.pixels for content in inputs])}

    def exportable(self) -> Exportable:
        pixels = self.read(PROBE).pixels
        assert pixels is not None
        levels = np.random.default_rng(0).normal(size=(5, *pixels.shape)).astype(np.float32)
        probes = [{"pixel_values": levels[:4]}, {"pixel_values": levels[4:]}]
        module = _ImageNetwork(_model(self._folder, self.config, excluded="text_model"))
        return Exportable(module, probes, {"pixel_values": {0: "batch"}})


class TextTower(NetworkEncoder):
    """The text side of a dual encoder of transformers, with its own tokenizer.

    Raises AssetError if the folder holds no such model, ConfigError for a `max_length` above the model's limit.
    """

    def __init__(
        self, config: NetworkEncoderConfig, folder: Path, assets_dir: Path, device: str, *, max_length: int
    ) -> None:
        self._folder, self._max_length = folder, max_length
        self._tokenizer = load_tokenizer(folder)
        super().__init__(config, assets_dir, device)

    def arrays(self, inputs: Sequence[Content]) -> Arrays:
        # SigLIP was trained on texts of one length; padding to it changes nothing for models that have a mask.
        tokens = self._tokenizer(
            [content.text for content in inputs],
            padding="max_length",
            truncation=True,
            max_length=self._max_length,
            return_tensors="np",
        )
        return {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask") if name in tokens}

    def exportable(self) -> Exportable:
        model = _model(self._folder, self.config, excluded="vision_model")
        longest = model.config.text_config.max_position_embeddings
        if self._max_length > longest:
            raise ConfigError(
                f"max_length = {self._max_length}, but the model takes {longest} tokens", where="encoder.max_length"
            )
        batches = ["a picture", "a photograph of two dogs on a beach", "!"], ["a cat"]
        probes = [self.arrays(contents(texts)) for texts in batches]
        return Exportable(_TextNetwork(model), probes, {name: {0: "batch"} for name in probes[0]})


class _ImageNetwork(nn.Module):
    """The image tower of a dual encoder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Unit vectors, float32 [B, K]."""
        return _unit(self.model.get_image_features(pixel_values=pixel_values.to(self.model.dtype)))


class _TextNetwork(nn.Module):
    """The text tower of a dual encoder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Unit vectors, float32 [B, K]."""
        mask_argument = {} if attention_mask is None else {"attention_mask": attention_mask}
        return _unit(self.model.get_text_features(input_ids=input_ids, **mask_argument))


def _model(model_path: Path, config: NetworkEncoderConfig, *, excluded: str) -> Any:
    """The model of a folder without the network of its other side, which would only take memory."""
    model = load_whole(model_path)
    if not hasattr(model, "get_image_features"):
        raise AssetError(
            f"a {model.config.model_type} model is no dual encoder",
            where=str(model_path),
            hint="Name a model such as CLIP or SigLIP, or align two encoders",
        )
    if hasattr(model, excluded):
        setattr(model, excluded, None)
    return model.to(dtype_of(config.precision)).eval()


def pretrained_reader(model_path: Path) -> Callable[[Content], Content]:
    """The picture reader of a pretrained dual encoder, with its image processor. Raises AssetError if it has none."""
    processor = load_image_processor(model_path)

    def read(content: Content) -> Content:
        if content.pixels is not None:
            return content
        pixels = processor(images=[upright(content.image)], return_tensors="pt")["pixel_values"]
        return replace(content, pixels=pixels[0].numpy())

    return read


def _unit(embedded: Any) -> Tensor:
    """Unit vectors, float32; transformers gives a tensor or an output around one, by version."""
    vectors_BK: Tensor = getattr(embedded, "pooler_output", embedded)
    return torch.nn.functional.normalize(vectors_BK.float(), dim=-1)
