"""The `classifier` adapter: a frozen encoder with a linear head that was fitted on train rows."""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from kcm.encoders import Encoder, EncoderConfig, encode_readable
from kcm.encoders.text import TextEncoderConfig
from kcm.errors import ArtefactError, ConfigError
from kcm.inputs.content import Content
from kcm.large.base import Cost, Item, LargeAnswer, LargeModel
from kcm.large.config import ON_CPU, EncodedConfig, Resources
from kcm.large.head import LinearHead


class ClassifierConfig(EncodedConfig):
    """An encoder and the fit of its head."""

    fits_on_train: ClassVar[bool] = True

    encoder: EncoderConfig = Field(
        default=TextEncoderConfig(model="sentence-transformers/all-mpnet-base-v2"),
        description="The large model's frozen encoder.",
    )

    def build(self, label_names: Sequence[str], assets_dir: Path, resources: Resources = ON_CPU) -> LargeModel:
        return ClassifierModel(
            self.encoder.build(assets_dir, resources.device), _require_head(resources.head), label_names
        )

    def identity(self, label_names: Sequence[str], assets_dir: Path, *, head: LinearHead | None = None) -> str:
        """Digest of the encoder, the head and the label list."""
        head, digest = _require_head(head), hashlib.sha256(self.encoder.identity(assets_dir).encode())
        digest.update("\0".join(label_names).encode())
        digest.update(np.ascontiguousarray(head.weight_CD).tobytes() + np.ascontiguousarray(head.bias_C).tobytes())
        return digest.hexdigest()


class EncodedModel(ABC):
    """A large model that computes probabilities [N, C] from the features [N, D] of its encoder."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def read(self, content: Content) -> Content:
        """See `Encoder`."""
        return self._encoder.read(content)

    def answer(self, items: Sequence[Item]) -> list[LargeAnswer]:
        """One answer per item; each costs its share of the batch's seconds.

        An item that cannot be read gets an answer with an error.
        """
        if not items:
            return []
        start = time.perf_counter()
        features_ND, faults = encode_readable(self._encoder, [item.content for item in items])
        probabilities_NC = self.probabilities(features_ND)
        cost = Cost(seconds=(time.perf_counter() - start) / len(items))
        rows = iter(probabilities_NC)
        answers = []
        for position in range(len(items)):
            row_C = None if position in faults else next(rows)
            if row_C is not None and np.isfinite(row_C).all():
                answers.append(LargeAnswer(int(row_C.argmax()), row_C, cost))
            else:
                fault = faults.get(position, "the model's probabilities are not numbers")
                answers.append(LargeAnswer(None, None, cost, fault))
        return answers

    @abstractmethod
    def probabilities(self, features_ND: np.ndarray) -> np.ndarray:
        """Probabilities, float32 [N, C]."""


class ClassifierModel(EncodedModel):
    """A large model that classifies."""

    def __init__(self, encoder: Encoder, head: LinearHead, label_names: Sequence[str]) -> None:
        if len(label_names) != len(head.bias_C):
            raise ConfigError(f"the head has {len(head.bias_C)} classes, the label list {len(label_names)}")
        super().__init__(encoder)
        self._head = head

    def probabilities(self, features_ND: np.ndarray) -> np.ndarray:
        return self._head.probabilities(features_ND)


def _require_head(head: LinearHead | None) -> LinearHead:
    if head is None:
        raise ArtefactError("the large model is a classifier, and the bundle holds no head for it")
    return head
