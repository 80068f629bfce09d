"""Galleries from the rows of a sequence of pairs, and the scores of all three models.

Shapes: N rows that match, U of them in a gallery with C distinct captions, K dimensions of a dual encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kcm.bundle.runtime import logits
from kcm.cascade.table import SPLITS
from kcm.collaborator.collaborator import Collaborator
from kcm.encoders.dual.image_text import pair_features
from kcm.tasks import TaskSequence
from kcm.tasks.readers.pairs import MATCH, NO_MATCH

from .fusion import TwoRankers, fit_weight, standardised
from .gallery import Gallery

IMAGE_TO_TEXT, TEXT_TO_IMAGE = "image to text", "text to image"

_PICTURES_AT_ONCE = 32


@dataclass(frozen=True)
class Vectors:
    """The vectors of the rows by a dual encoder, unit vectors float32 [N, K]."""

    images: np.ndarray
    texts: np.ndarray


def matching_rows(sequence: TaskSequence) -> pa.Table:
    """The rows that match, of all splits but train: id, text, image, group, split and the name of their task."""
    match = sequence.label_names.index(MATCH)
    parts = []
    for task in sequence.tasks:
        rows = task.rows
        rows = rows.filter(pc.and_(pc.equal(rows["label"], match), pc.not_equal(rows["split"], "train")))
        parts.append(rows.drop_columns(["label"]).append_column("task", pa.array([task.name] * len(rows), pa.string())))
    return pa.concat_tables(parts)


def galleries(
    rows: pa.Table, small: Vectors, large: Vectors, collaborator: Collaborator, label_names: tuple[str, ...]
) -> list[Gallery]:
    """Two galleries for every task and split: its captions for its pictures, and its pictures for its captions.

    Judge and small model score by their log-odds of a match, joined with the cosine of their own dual encoder.
    """
    match, no_match = label_names.index(MATCH), label_names.index(NO_MATCH)
    columns = {
        name: np.array(rows[name].to_pylist(), dtype=object) for name in ("id", "text", "group", "split", "task")
    }
    found: list[tuple[Gallery, np.ndarray]] = []
    for task in dict.fromkeys(columns["task"]):
        for split in SPLITS:
            member_U = np.flatnonzero((columns["task"] == task) & (columns["split"] == split))
            caption_U = np.array([text.casefold() for text in columns["text"][member_U]], dtype=object)
            _, first_C, number_U = np.unique(caption_U.astype(str), return_index=True, return_inverse=True)
            caption_C = member_U[first_C]
            judge_UC, small_UC = _match_scores(
                collaborator, small.images[member_U], small.texts[caption_C], match, no_match
            )
            cosine_UC = _cosines(small, member_U, caption_C)
            scores = {
                "judge": judge_UC,
                "small": small_UC,
                "large": _cosines(large, member_U, caption_C),
                "relevant": number_U[:, None] == np.arange(len(caption_C)),
            }
            for way, asked in ((IMAGE_TO_TEXT, member_U), (TEXT_TO_IMAGE, caption_C)):
                turned = way == TEXT_TO_IMAGE
                oriented = {name: score_UC.T if turned else score_UC for name, score_UC in scores.items()}
                group = columns["group"][asked]
                gallery = Gallery(**oriented, ids=columns["id"][asked], group=group, task=task, split=split, way=way)
                found.append((gallery, cosine_UC.T if turned else cosine_UC))
    return _joined(found)


def _joined(found: Sequence[tuple[Gallery, np.ndarray]]) -> list[Gallery]:
    """The galleries, with the networks' scores joined with the cosines that are among what the networks see.

    Networks that learn from some hundred pictures tell matches from others and yet rank worse than that cosine does.
    How much they count is fitted on validate queries.
    """

    def both(gallery: Gallery, cosine_QG: np.ndarray, network: str) -> TwoRankers:
        return TwoRankers(standardised(cosine_QG), standardised(getattr(gallery, network)), gallery.relevant)

    weights = {
        network: fit_weight(
            [both(gallery, cosine_QG, network) for gallery, cosine_QG in found if gallery.split == "validate"]
        )
        for network in ("judge", "small")
    }
    return [
        replace(
            gallery,
            judge=both(gallery, cosine_QG, "judge").fused(weights["judge"]),
            small=both(gallery, cosine_QG, "small").fused(weights["small"]),
        )
        for gallery, cosine_QG in found
    ]


def _cosines(vectors: Vectors, images_U: np.ndarray, texts_C: np.ndarray) -> np.ndarray:
    return np.asarray(vectors.images[images_U] @ vectors.texts[texts_C].T, dtype=np.float64)


def _match_scores(
    collaborator: Collaborator, images_UK: np.ndarray, texts_CK: np.ndarray, match: int, no_match: int
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds of a match by judge and small model for every picture and caption, float64 [U, C] each."""
    parts = list(_blocks(collaborator, images_UK, texts_CK))
    judge, small = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    shape = (len(images_UK), len(texts_CK))
    return tuple((each[:, match] - each[:, no_match]).reshape(shape) for each in (judge, small))


def _blocks(
    collaborator: Collaborator, images_UK: np.ndarray, texts_CK: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Logits of all pairs, some pictures at a time: all features at once would not fit in memory."""
    for start in range(0, len(images_UK), _PICTURES_AT_ONCE):
        block_BK = images_UK[start : start + _PICTURES_AT_ONCE]
        pairs = np.repeat(block_BK, len(texts_CK), axis=0), np.tile(texts_CK, (len(block_BK), 1))
        yield logits(collaborator, pair_features(*pairs))
