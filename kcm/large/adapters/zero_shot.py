"""The `zero_shot` adapter: a dual encoder answers with the label whose prompt is most similar to the input.

Both sides produce unit vectors in one space; probabilities are the softmax of their inner products over a temperature.
Inputs may be pictures; labels are always texts (CLIP, arXiv 2103.00020).
Shapes: N items, C labels, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator
from scipy.special import softmax

from kcm.encoders import Encoder, EncoderConfig
from kcm.encoders.config import is_dual
from kcm.encoders.text import TextEncoderConfig
from kcm.inputs.content import contents
from kcm.large.adapters.classifier import EncodedModel
from kcm.large.base import Item, LargeModel
from kcm.large.config import ON_CPU, EncodedConfig, Resources
from kcm.large.head import LinearHead
from kcm.large.prompts import PromptMessage

_PLACE = "{label}"


class ZeroShotConfig(EncodedConfig):
    """A dual encoder that compares the input with a prompt for each label; nothing is fitted."""

    encoder: EncoderConfig = Field(
        default=TextEncoderConfig(model="sentence-transformers/all-mpnet-base-v2"),
        description="The encoder of texts and of label prompts; for pictures, `image_text` with `output: image`.",
    )
    template: str = Field(default=f"This text is about {_PLACE}.", description="Prompt of a label, with its place.")
    temperature: float = Field(default=0.05, gt=0, description="Divides the similarities; small values are surer.")

    @field_validator("encoder")
    @classmethod
    def _compares(cls, value: EncoderConfig) -> EncoderConfig:
        if "text" not in _of_texts(value).reads:
            raise ValueError(f"an encoder of kind {value.kind!r} cannot read label prompts: use image_text")
        if len(value.reads) > 1:
            raise ValueError("a pair cannot be compared with label prompts: use output image or text")
        return value

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, value: str) -> str:
        if value.count(_PLACE) != 1:
            raise ValueError(f"the template must contain {_PLACE} exactly once, in the place of the label")
        return value

    def prompt_of(self, label_name: str) -> str:
        """The prompt of a label."""
        return self.template.replace(_PLACE, label_name)

    def build(self, label_names: Sequence[str], assets_dir: Path, resources: Resources = ON_CPU) -> LargeModel:
        inputs, labels = (
            encoder.build(assets_dir, resources.device) for encoder in (self.encoder, _of_texts(self.encoder))
        )
        return ZeroShotModel(self, inputs, labels, label_names)

    def identity(self, label_names: Sequence[str], assets_dir: Path, *, head: LinearHead | None = None) -> str:
        inputs, labels = (encoder.identity(assets_dir) for encoder in (self.encoder, _of_texts(self.encoder)))
        parts = (inputs, labels, self.template, repr(self.temperature), *label_names)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def messages(self, label_names: Sequence[str], item: Item) -> list[PromptMessage]:
        """The label prompts that the input is compared with."""
        return [PromptMessage("label", self.prompt_of(name)) for name in label_names]


def _of_texts(encoder: EncoderConfig) -> EncoderConfig:
    """The encoder of the label prompts: the text side of a dual encoder, or the encoder of texts itself."""
    return encoder.with_settings(output="text") if is_dual(encoder) else encoder


class ZeroShotModel(EncodedModel):
    """A large model without training. `encoder` reads the inputs, `label_encoder` the label prompts."""

    def __init__(
        self, config: ZeroShotConfig, encoder: Encoder, label_encoder: Encoder, label_names: Sequence[str]
    ) -> None:
        super().__init__(encoder)
        self._temperature = config.temperature
        self._labels_CD = label_encoder.encode(contents(map(config.prompt_of, label_names)))

    def probabilities(self, features_ND: np.ndarray) -> np.ndarray:
        similarity_NC = features_ND @ self._labels_CD.T
        return np.asarray(softmax(similarity_NC / self._temperature, axis=1), dtype=np.float32)
