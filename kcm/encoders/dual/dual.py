"""Dual encoders: pictures and texts as unit vectors of one space, whose inner product says how well they match.

Shapes: N inputs, B inputs of a batch, K dimensions of the common space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from kcm.assets import folder_digest
from kcm.encoders.config import Precision
from kcm.encoders.runtime.export import NETWORK, exported
from kcm.encoders.runtime.network import Network, OnnxNetwork
from kcm.encoders.runtime.torch_network import Exportable, TorchNetwork, dtype_of, loading
from kcm.errors import AssetError, ConfigError
from kcm.inputs.content import PROBE, Content
from kcm.inputs.pictures import MAX_PIXELS, read_all, upright


class DualEncoder(Protocol):
    """Two frozen encoders into one space."""

    @property
    def dim(self) -> int:
        """The dimensions K of the common space."""

    def read(self, content: Content) -> Content:
        """The content with the pixels of its picture. Raises PictureError."""

    def images(self, inputs: Sequence[Content]) -> np.ndarray:
        """Their pictures, unit vectors float32 [N, K]. Raises UnreadableError."""

    def texts(self, inputs: Sequence[Content]) -> np.ndarray:
        """Their texts, unit vectors float32 [N, K]."""


@dataclass(frozen=True)
class DualSettings:
    """How a pretrained dual encoder reads its inputs and computes."""

    max_length: int
    batch_size: int
    precision: Precision = "float32"

    def identity(self, model_path: Path) -> str:
        """Digest of all that decides what the model of a folder gives."""
        return folder_digest(model_path, f"dual {self.max_length} {MAX_PIXELS} {self.precision}\n")


class PretrainedDual:
    """A dual encoder of transformers, such as CLIP or SigLIP, with its own image processor and tokenizer.

    `exports_dir` is where exported networks lie, None for torch. Raises AssetError where the folder holds no such
    model, ConfigError for a `max_length` beyond what it takes.
    """

    def __init__(
        self, model_path: Path, settings: DualSettings, *, device: str = "cpu", exports_dir: Path | None = None
    ) -> None:
        self.read = pretrained_reader(model_path)
        self._max_length = settings.max_length
        # Dynamic int8 quantisation has one scale per call: with one input per call, vectors depend on no other input.
        self._batch_size = 1 if settings.precision == "int8" else settings.batch_size
        with loading(model_path):
            self._tokenizer = AutoTokenizer.from_pretrained(model_path, local_files_only=True)
        self._image, self._text = self._networks(model_path, settings, device, exports_dir)
        self.dim = int(self.texts([Content("a picture")]).shape[1])

    def images(self, inputs: Sequence[Content]) -> np.ndarray:
        pixels = [content.pixels for content in read_all(inputs, self.read)]
        return self._batched(pixels, lambda batch: self._image({"pixel_values": np.stack(batch)}))

    def texts(self, inputs: Sequence[Content]) -> np.ndarray:
        return self._batched([content.text for content in inputs], lambda batch: self._text(self._tokens(batch)))

    def _tokens(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        # SigLIP was trained on texts of one length; padding to it changes nothing for models that have a mask.
        tokens = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self._max_length, return_tensors="np"
        )
        return {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask") if name in tokens}

    def _batched(self, inputs: Sequence[Any], embed: Callable[[Sequence[Any]], np.ndarray]) -> np.ndarray:
        parts = [embed(inputs[start : start + self._batch_size]) for start in range(0, len(inputs), self._batch_size)]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), dtype=np.float32)

    def _networks(
        self, model_path: Path, settings: DualSettings, device: str, exports_dir: Path | None
    ) -> tuple[Network, Network]:
        """The image tower and the text tower."""
        if exports_dir is None:
            model = _model(model_path, settings)
            return TorchNetwork(_ImageNetwork(model), device), TorchNetwork(_TextNetwork(model), device)
        identity = settings.identity(model_path)
        found = [
            OnnxNetwork(exported(f"{identity}-{part}", settings.precision, exports_dir, make) / NETWORK)
            for part, make in (
                ("image", lambda: self._exportable_image(model_path, settings)),
                ("text", lambda: self._exportable_text(model_path, settings)),
            )
        ]
        return found[0], found[1]

    def _exportable_image(self, model_path: Path, settings: DualSettings) -> Exportable:
        one = self.read(PROBE).pixels
        assert one is not None
        levels = np.random.default_rng(0).normal(size=(5, *one.shape)).astype(np.float32)
        probes = [{"pixel_values": levels[:4]}, {"pixel_values": levels[4:]}]
        module = _ImageNetwork(_model(model_path, settings))
        return Exportable(module, probes, {"pixel_values": {0: "batch"}})

    def _exportable_text(self, model_path: Path, settings: DualSettings) -> Exportable:
        probes = [self._tokens(["a picture", "a photograph of two dogs on a beach", "!"]), self._tokens(["a cat"])]
        axes = {name: {0: "batch"} for name in probes[0]}
        return Exportable(_TextNetwork(_model(model_path, settings)), probes, axes)


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
        known = {} if attention_mask is None else {"attention_mask": attention_mask}
        return _unit(self.model.get_text_features(input_ids=input_ids, **known))


def _model(model_path: Path, settings: DualSettings) -> Any:
    with loading(model_path):
        model, report = AutoModel.from_pretrained(
            model_path, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    if report["missing_keys"]:
        raise AssetError(f"the encoder lacks weights, such as {min(report['missing_keys'])!r}", where=str(model_path))
    if not hasattr(model, "get_image_features"):
        raise AssetError(
            f"a {model.config.model_type} model is no dual encoder",
            where=str(model_path),
            hint="Name a model such as CLIP or SigLIP, or align two encoders",
        )
    longest = model.config.text_config.max_position_embeddings
    if settings.max_length > longest:
        raise ConfigError(
            f"max_length = {settings.max_length}, but the model takes {longest} tokens", where="encoder.max_length"
        )
    return model.to(dtype_of(settings.precision)).eval()


def pretrained_reader(model_path: Path) -> Callable[[Content], Content]:
    """How a pretrained dual encoder reads pictures, by its image processor. Raises AssetError where there is none."""
    with loading(model_path):
        processor = AutoImageProcessor.from_pretrained(model_path, local_files_only=True)

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
