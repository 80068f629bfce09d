"""Dual encoders: pictures and texts as unit vectors of one space, whose inner product says how well they match.

Shapes: N inputs, K dimensions of the common space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from kcm.encoders.identity import folder_digest
from kcm.errors import AssetError, ConfigError
from kcm.inputs.content import Content
from kcm.inputs.pictures import read_all, upright

_FILES = ("preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json")


class DualEncoder(Protocol):
    """Two frozen encoders into one space."""

    @property
    def dim(self) -> int:
        """K."""

    def read(self, content: Content) -> Content:
        """The content with the pixels of its picture. Raises PictureError."""

    def images(self, inputs: Sequence[Content]) -> np.ndarray:
        """Their pictures, unit vectors float32 [N, K]. Raises UnreadableError."""

    def texts(self, inputs: Sequence[Content]) -> np.ndarray:
        """Their texts, unit vectors float32 [N, K]."""


class PretrainedDual:
    """A dual encoder of transformers, such as CLIP or SigLIP, with its own image processor and tokenizer.

    Raises AssetError where the folder holds no such model, ConfigError for a `max_length` beyond what it takes.
    """

    def __init__(
        self, model_path: Path, *, max_length: int, max_pixels: int, batch_size: int, device: str = "cpu"
    ) -> None:
        self._batch_size, self._device = batch_size, torch.device(device)
        self.read = pretrained_reader(model_path, max_pixels)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model_path, local_files_only=True)
            model, report = AutoModel.from_pretrained(
                model_path, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise AssetError(
                f"cannot load the encoder: {' '.join(str(error).split())}", where=str(model_path)
            ) from None
        if report["missing_keys"]:
            raise AssetError(
                f"the encoder lacks weights, such as {min(report['missing_keys'])!r}", where=str(model_path)
            )
        if not hasattr(model, "get_image_features"):
            raise AssetError(
                f"a {model.config.model_type} model is no dual encoder",
                where=str(model_path),
                mend="Name a model such as CLIP or SigLIP, or align two encoders",
            )
        longest = model.config.text_config.max_position_embeddings
        if max_length > longest:
            raise ConfigError(
                f"max_length = {max_length}, but the model takes {longest} tokens", where="encoder.max_length"
            )
        self._model, self._max_length = model.to(self._device).eval(), max_length
        self.dim = int(self.texts([Content("a picture")]).shape[1])

    def images(self, inputs: Sequence[Content]) -> np.ndarray:
        return self._batched([content.pixels for content in read_all(inputs, self.read)], self._images)

    def texts(self, inputs: Sequence[Content]) -> np.ndarray:
        return self._batched([content.text for content in inputs], self._texts)

    def _images(self, pixels: Sequence[Any]) -> Any:
        return self._model.get_image_features(pixel_values=torch.from_numpy(np.stack(pixels)).to(self._device))

    def _texts(self, texts: Sequence[str]) -> Any:
        # SigLIP was trained on texts of one length; padding to it changes nothing for models that have a mask.
        tokens = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self._max_length, return_tensors="pt"
        )
        known = {name: tokens[name].to(self._device) for name in ("input_ids", "attention_mask") if name in tokens}
        return self._model.get_text_features(**known)

    @torch.inference_mode()
    def _batched(self, inputs: Sequence[Any], embed: Any) -> np.ndarray:
        parts = [
            _unit(embed(inputs[start : start + self._batch_size])) for start in range(0, len(inputs), self._batch_size)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), dtype=np.float32)


def pretrained_reader(model_path: Path, max_pixels: int) -> Callable[[Content], Content]:
    """How a pretrained dual encoder reads pictures, by its image processor. Raises AssetError where there is none."""
    from transformers import AutoImageProcessor  # two seconds that no other encoder has to wait

    try:
        processor = AutoImageProcessor.from_pretrained(model_path, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise AssetError(f"cannot load the encoder: {' '.join(str(error).split())}", where=str(model_path)) from None

    def read(content: Content) -> Content:
        if content.pixels is not None:
            return content
        pixels = processor(images=[upright(content.image, max_pixels)], return_tensors="pt")["pixel_values"]
        return replace(content, pixels=pixels[0].numpy())

    return read


def pretrained_identity(model_path: Path, max_length: int, max_pixels: int) -> str:
    """Digest of all that decides what a pretrained dual encoder gives."""
    return folder_digest(model_path, _FILES, f"max_length {max_length}\nmax_pixels {max_pixels}\n")


def _unit(embedded: Any) -> np.ndarray:
    """Unit vectors, float32; transformers gives a tensor or an output around one, by version."""
    vectors_NK: Tensor = getattr(embedded, "pooler_output", embedded)
    unit: np.ndarray = torch.nn.functional.normalize(vectors_NK.float(), dim=-1).cpu().numpy()
    return unit
