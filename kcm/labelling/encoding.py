"""The vectors of a table's texts: a frozen encoder's, or the texts' own words.

Shapes: U texts, D coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from kcm.encoders import EncoderConfig
from kcm.inputs.content import Content

NUM_TOPICS, _MAX_FITTED = 200, 50_000
_MAX_WORDS = 50_000


def word_vectors(texts: Sequence[str], seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors [U, D] of words and pairs of words, TF-IDF reduced by latent semantic analysis.

    All texts of the table weigh the words, since no label is needed for that; a text without a known word is zero.
    """
    chosen = np.random.default_rng(seed).permutation(len(texts))[:_MAX_FITTED]
    vectorizer = TfidfVectorizer(
        sublinear_tf=True, ngram_range=(1, 2), min_df=2, max_features=_MAX_WORDS, token_pattern=r"(?u)\b\w+\b"
    )
    try:
        fitted = vectorizer.fit_transform([texts[place] for place in chosen])
    except ValueError:  # no word occurs in two texts
        return np.zeros((len(texts), 1), dtype=np.float32)
    size = min(NUM_TOPICS, fitted.shape[1] - 1, len(chosen) - 1)
    if size < 2 or fitted.max() == fitted.min():
        return np.zeros((len(texts), 1), dtype=np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):  # shares of a variance that is 0
        reduced = TruncatedSVD(size, random_state=seed).fit(fitted)
    return _unit(reduced.transform(vectorizer.transform(texts)))


def encoded(
    texts: Sequence[str], encoder: EncoderConfig | None, assets_dir: Path, chunk: int = 2048
) -> NDArray[np.float32]:
    """Vectors [U, D] of unit length; without an encoder, those of the words."""
    if encoder is None:
        return word_vectors(texts)
    model = encoder.build(assets_dir)
    parts = [
        model.encode([Content(text) for text in texts[start : start + chunk]]) for start in range(0, len(texts), chunk)
    ]
    return _unit(np.concatenate(parts))


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), dtype=np.float32)
