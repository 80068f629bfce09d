"""Two frozen encoders under an alignment head, as a dual encoder; its folder holds the head and the names of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kcm.assets import folder_digest
from kcm.encoders.base import Encoder
from kcm.encoders.config import TowersConfig
from kcm.encoders.dual.alignment import WEIGHTS, AlignmentHead
from kcm.inputs.content import Content

_CONFIG, _MODEL_TYPE = "config.json", "alignment-head"
ALIGNED_FILES = (_CONFIG, WEIGHTS)


class AlignedDual:
    """See `kcm.encoders.dual.dual.DualEncoder`."""

    def __init__(self, image: Encoder, text: Encoder, head: AlignmentHead) -> None:
        self._image, self._text, self._head = image, text, head
        self.dim = head.text.out_features

    def read(self, content: Content) -> Content:
        return self._image.read(content)

    def images(self, inputs: Sequence[Content]) -> np.ndarray:
        embedded: np.ndarray = self._head.images(torch.from_numpy(self._image.encode(inputs))).numpy()
        return embedded

    def texts(self, inputs: Sequence[Content]) -> np.ndarray:
        embedded: np.ndarray = self._head.texts(torch.from_numpy(self._text.encode(inputs))).numpy()
        return embedded


def save_aligned(folder: Path, towers: TowersConfig, head: AlignmentHead) -> None:
    """Write a folder that can be named as the model of an `image_text` encoder."""
    head.save(folder)
    config = {"model_type": _MODEL_TYPE, "towers": towers.model_dump(mode="json")}
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_towers(folder: Path) -> TowersConfig | None:
    """The encoders below the alignment head of a folder; None where the folder holds another model."""
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return TowersConfig.model_validate(config["towers"]) if config.get("model_type") == _MODEL_TYPE else None


def aligned_identity(folder: Path, image_identity: str, text_identity: str) -> str:
    """Digest of an alignment head and of the encoders below it."""
    parts = (folder_digest(folder, "alignment head\n"), image_identity, text_identity)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
