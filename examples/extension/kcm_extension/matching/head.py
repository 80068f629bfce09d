"""The alignment head: two linear towers over frozen features of pictures and of texts, into one space.

It is fitted on the match rows of the train split, by the symmetric InfoNCE loss of CLIP (arXiv 2103.00020, figure 3).
Equal captions are equal targets. Shapes: N pairs, B pairs of a
batch, I and T features of the two towers, K dimensions of the common space.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.collaborator.normalizer import UnitNormalizer
from kcm.errors import AssetError, DataError

WEIGHTS = "model.safetensors"
_DIM, _DROPOUT = 128, 0.5  # width of the common space; share of features dropped in a step
_EPOCHS, _PAIRS_PER_STEP = 40, 256
_LEARNING_RATE, _WEIGHT_DECAY = 1e-3, 0.1  # of AdamW on a one-cycle schedule
_TEMPERATURE = 0.07  # initial divisor of similarities


class AlignmentHead(nn.Module):
    """Two linear maps of unit vectors times sqrt(D), to unit vectors."""

    def __init__(self, image_dim: int, text_dim: int, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(image_dim, dim), nn.Linear(text_dim, dim)
        self._scale, self._dropout = UnitNormalizer(), nn.Dropout(dropout)

    def images(self, features_NI: Tensor) -> Tensor:
        """Pictures in the common space, unit vectors [N, K]."""
        return F.normalize(self.image(self._dropout(self._scale(features_NI))), dim=-1)

    def texts(self, features_NT: Tensor) -> Tensor:
        """Texts in the common space, unit vectors [N, K]."""
        return F.normalize(self.text(self._dropout(self._scale(features_NT))), dim=-1)

    def save(self, folder: Path) -> None:
        """Write the weights as safetensors, and what they are."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / WEIGHTS)
        (folder / "config.json").write_text(json.dumps({"model_type": "alignment-head"}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> AlignmentHead:
        """Read a saved head, frozen. Raises AssetError if it is missing or damaged."""
        try:
            state = load_file(folder / WEIGHTS)
            head = cls(state["image.weight"].shape[1], state["text.weight"].shape[1], len(state["text.weight"]))
            head.load_state_dict(state)
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise AssetError(f"not an alignment head: {' '.join(str(error).split())}", where=str(folder)) from None
        return head.eval().requires_grad_(False)


def fit_alignment(images_NI: np.ndarray, texts_NT: np.ndarray, captions: Sequence[str], seed: int) -> AlignmentHead:
    """Fit a head to N matching pairs of float32 features; equal `captions` [N] mark pairs with the same text.

    Deterministic for the same rows, seed and kind of machine. Raises DataError for fewer than two captions.
    """
    if len(set(captions)) < 2:
        raise DataError(f"an alignment head needs at least two captions, it has {len(set(captions))}", where="train")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = AlignmentHead(images_NI.shape[1], texts_NT.shape[1], _DIM, _DROPOUT)
        images, texts = torch.from_numpy(images_NI), torch.from_numpy(texts_NT)
        caption_N = torch.from_numpy(np.unique(np.asarray(captions, dtype=object).astype(str), return_inverse=True)[1])
        log_scale = nn.Parameter(torch.tensor(-math.log(_TEMPERATURE)))
        size = min(_PAIRS_PER_STEP, len(captions))
        # The schedule divides by its warm-up, a tenth of all steps but one: with ten steps or fewer it would be zero.
        num_steps = max(_EPOCHS * (len(captions) // size), 11)
        optimizer = torch.optim.AdamW([*head.parameters(), log_scale], lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, num_steps, pct_start=0.1)
        for _ in range(_EPOCHS):
            order = torch.randperm(len(captions), generator=generator)
            for start in range(0, len(order) - size + 1, size):
                index = order[start : start + size]
                similarity_BB = head.images(images[index]) @ head.texts(texts[index]).T
                loss = _info_nce(similarity_BB * log_scale.exp().clamp(max=100), caption_N[index])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return head.eval().requires_grad_(False)


def _info_nce(logits_BB: Tensor, caption_B: Tensor) -> Tensor:
    """Cross entropy of every picture over the texts and of every text over the pictures, equal captions sharing 1."""
    same_BB = (caption_B[:, None] == caption_B[None, :]).to(logits_BB.dtype)
    target_BB = same_BB / same_BB.sum(1, keepdim=True)  # symmetric, like the matrix it divides
    over_texts = F.cross_entropy(logits_BB, target_BB)
    return (over_texts + F.cross_entropy(logits_BB.T, target_BB)) / 2
