"""The words of a text, beside its embedding: where words carry the label, an embedding alone is blind to them.

Words and pairs of words are hashed (arXiv 0902.2206), weighted by TF-IDF and reduced by latent semantic analysis.
Weights and topics are fitted once, to train rows of the first task: features of a row do not depend on later tasks.
Shapes: N texts, V buckets, K topics, D features of the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer

from kcm.closed_form.left_out import gram_ridge_left_out
from kcm.encoders.text_settings import WORDS_FILE
from kcm.errors import AssetError
from kcm.metrics.intervals import Units

NUM_TOPICS = 256  # more, or the 1,024 most frequent words unreduced, were level on train rows
SCALES = (0.35, 0.5, 0.7, 1.0, 1.4)  # of the words' length to the embedding's; 0 means no words
_NUM_BUCKETS = 2**18
_MAX_BUCKETS = 8192  # most frequent ones that are reduced
_MIN_ROWS = 2  # of a bucket: a word of a single row tells nothing of others
_CURVES = 2.0  # weight of the squared cosine beside the cosine, as in a network of quadratic units


@dataclass(frozen=True, eq=False)
class Words:
    """Topics of texts: `topic_VK` maps the weights of `bucket_V` (ascending) to topics; other buckets weigh `rare`."""

    bucket_V: NDArray[np.int64]
    weight_V: NDArray[np.float32]
    rare: float
    topic_VK: NDArray[np.float32]

    @property
    def num_topics(self) -> int:
        """K."""
        return self.topic_VK.shape[1]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Topics [N, K]; a text without known words is zero."""
        return np.asarray(_weighted(_counts(texts), self) @ self.topic_VK, dtype=np.float32)

    def scaled(self, factor: float) -> Words:
        """The same topics times `factor`."""
        return replace(self, topic_VK=(factor * self.topic_VK).astype(np.float32))

    def save(self, folder: Path) -> None:
        """Write `WORDS_FILE`."""
        arrays = {"bucket": self.bucket_V, "weight": self.weight_V, "rare": np.array([self.rare])}
        save_file(arrays | {"topic": np.ascontiguousarray(self.topic_VK)}, folder / WORDS_FILE)

    @classmethod
    def load(cls, folder: Path) -> Words:
        """Read `WORDS_FILE`. Raises AssetError if it is missing or damaged."""
        try:
            arrays = load_file(folder / WORDS_FILE)
            words = cls(arrays["bucket"], arrays["weight"], float(arrays["rare"][0]), arrays["topic"])
            words.check()
        except (OSError, KeyError, IndexError, ValueError, SafetensorError) as error:
            raise AssetError(f"not fitted words: {' '.join(str(error).split())}", where=str(folder)) from None
        return words

    def check(self) -> None:
        """Raise ValueError for arrays that `encode` cannot use."""
        if not self.bucket_V.shape == self.weight_V.shape == self.topic_VK.shape[:1] or self.topic_VK.ndim != 2:
            raise ValueError("its arrays do not fit together")
        if self.bucket_V.dtype != np.int64 or not np.isin(self.bucket_V, np.arange(_NUM_BUCKETS)).all():
            raise ValueError(f"its buckets are not among {_NUM_BUCKETS}")
        if not all(np.isfinite(values).all() for values in (self.weight_V, self.topic_VK, self.rare)):
            raise ValueError("it has numbers that are not finite")


def fit_words(texts: Sequence[str]) -> Words | None:
    """Words fitted to texts, at a mean square length of 1; None if hardly any word occurs in two texts."""
    counts_NB = _counts(texts)
    rows_B = np.bincount(counts_NB.indices, minlength=_NUM_BUCKETS)
    frequent = np.lexsort((np.arange(_NUM_BUCKETS), -rows_B))[:_MAX_BUCKETS]
    bucket_V = np.sort(frequent[rows_B[frequent] >= _MIN_ROWS])
    size = min(NUM_TOPICS, len(bucket_V) - 1, len(texts) - 1)
    if size < 2:
        return None
    weight_V = 1 + np.log((1 + len(texts)) / (1 + rows_B[bucket_V]))
    rare = 1 + np.log((1 + len(texts)) / _MIN_ROWS)
    plain = Words(bucket_V, weight_V.astype(np.float32), float(rare), np.eye(0, dtype=np.float32))
    weighted_NV = _weighted(counts_NB, plain)
    with np.errstate(invalid="ignore", divide="ignore"):  # shares of a variance that is 0
        topic_VK = TruncatedSVD(size, random_state=0).fit(weighted_NV).components_.T
    length = np.sqrt(np.square(weighted_NV @ topic_VK).sum(1).mean())
    return replace(plain, topic_VK=(topic_VK / length).astype(np.float32)) if length > 0 else None


def useful_scale(
    embedding_ND: NDArray[np.float32], topics_NK: NDArray[np.float32], label_N: NDArray[np.int64], units: Units
) -> float:
    """The scale of the words, 0 or one of `SCALES`, with the least squared error of left-out rows; 0 on a tie.

    The regression has the kernel of quadratic units on embeddings of unit length, plus the linear kernel of the words:
    z + 2 z^2 + scale^2 w, with z the cosine of two embeddings and w the inner product of their topics. From the
    smallest scale, the search ends when the error rises.
    """
    length_N1 = np.linalg.norm(embedding_ND.astype(np.float64), axis=1, keepdims=True)
    unit_ND = embedding_ND / np.maximum(length_N1, 1e-12)
    cosine_NN, words_NN = unit_ND @ unit_ND.T, topics_NK.astype(np.float64) @ topics_NK.T
    embedded_NN = cosine_NN + _CURVES * np.square(cosine_NN)
    targets_NC = np.eye(int(label_N.max()) + 1)[label_N]
    best, least = 0.0, np.inf
    for scale in (0.0, *SCALES):
        ridge = gram_ridge_left_out(embedded_NN + scale**2 * words_NN, targets_NC, units)
        error = float(np.square(ridge.left_out - targets_NC).sum())
        if error >= least:
            break
        best, least = scale, error
    return best


def _counts(texts: Sequence[str]) -> csr_array:
    """1 + log of the number of times that a word or a pair occurs, by bucket: [N, buckets]."""
    vectorizer = HashingVectorizer(
        n_features=_NUM_BUCKETS, ngram_range=(1, 2), alternate_sign=False, norm=None, token_pattern=r"(?u)\b\w+\b"
    )
    counts_NB = csr_array(vectorizer.transform(texts))
    counts_NB.data = 1 + np.log(counts_NB.data)
    return counts_NB


def _weighted(counts_NB: csr_array, words: Words) -> csr_array:
    """TF-IDF of the buckets of `words`, [N, V]; with all other buckets, a row has length 1."""
    weight_B = np.full(_NUM_BUCKETS, words.rare)
    weight_B[words.bucket_V] = words.weight_V
    values = counts_NB.data * weight_B[counts_NB.indices]
    row = np.repeat(np.arange(counts_NB.shape[0]), np.diff(counts_NB.indptr))
    length_N = np.sqrt(np.bincount(row, np.square(values), minlength=counts_NB.shape[0]))
    weighted_NB = csr_array((values / length_N[row], counts_NB.indices, counts_NB.indptr), counts_NB.shape)
    return weighted_NB[:, words.bucket_V]
