"""Inputs of a router, from the text and optionally the small model's response: numbers, features, hashed words.

Shapes: N rows, F numbers, E features of the encoder, G categories, V word buckets.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, hstack
from scipy.special import logit
from sklearn.feature_extraction.text import HashingVectorizer

from kcm.assets import is_intact
from kcm.durable import drafted
from kcm.encoders.config import Encoder
from kcm.encoders.text import TextEncoder, TextEncoderConfig
from kcm.errors import DataError
from kcm.inputs.content import contents
from kcm.routing.table import RoutingTable

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
NO_ENCODER = "none"
NUM_BUCKETS = 2**14
MOST_CATEGORIES = 1000  # a router solves for each of them
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?:\s|$)")
_NUM_STATISTICS = 17
_ENCODED_AT_ONCE = 256  # texts between two updates of the progress
_CLIP = 1e-6  # confidences closer to 0 or 1 are clipped: their log-odds would dwarf all others


Progress = Callable[[str, int, int], None]
"""Receives the kind of progress, the number done, and the total."""


def silent(what: str, done: int, total: int) -> None:
    """Ignores the progress."""


@dataclass(frozen=True, eq=False)
class RouterInputs:
    """Four kinds of input; any may have width 0, and the last two are sparse.

    `category_NG` has a one at the row's category; the rows of `words_NV` have length 1 for every text.
    """

    numbers_NF: NDArray[np.float64]
    encoding_NE: NDArray[np.float64]
    category_NG: csr_array
    words_NV: csr_array

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """F, E, G and V."""
        return (self.numbers_NF.shape[1], self.encoding_NE.shape[1], self.category_NG.shape[1], self.words_NV.shape[1])

    def __len__(self) -> int:
        return len(self.numbers_NF)

    def select(self, rows: ArrayLike) -> RouterInputs:
        """The rows selected by a boolean mask or an array of positions."""
        index = np.asarray(rows)
        return RouterInputs(
            self.numbers_NF[index], self.encoding_NE[index], self.category_NG[index], self.words_NV[index]
        )


def categories_of(table: RoutingTable) -> tuple[str, ...]:
    """The categories that a router uses: the most frequent ones, ordered by name."""
    if table.category is None:
        return ()
    return tuple(sorted(pd.Series(table.category).value_counts().index[:MOST_CATEGORIES]))


def router_inputs(
    table: RoutingTable,
    encoder: Encoder | None,
    *,
    is_confidence: bool,
    categories: Sequence[str] = (),
    progress: Progress = silent,
    cache_dir: Path | None = None,
) -> RouterInputs:
    """The inputs of every row of `table`; `is_confidence` says that its `confidence` is a probability.

    A missing category, or one outside `categories`, is read as none.

    `cache_dir` holds the features of columns encoded earlier; None: none are kept. The small model's reply is read like
    the input's text, in separate columns. Raises DataError if the table has nothing to route by.
    """
    numbers = [] if table.features is None else [table.features]
    if table.confidence is not None:
        numbers.append(table.confidence[:, None])
        if is_confidence:
            numbers.append(logit(np.clip(table.confidence, _CLIP, 1 - _CLIP))[:, None])
    encodings, words = [np.zeros((len(table), 0))], [csr_array((len(table), 0))]
    for column in (table.text, table.small_response):
        if column is None:
            continue
        texts = [str(text) for text in column]
        numbers.append(text_statistics(texts))
        words.append(hashed_words(texts))
        if encoder is not None:
            encodings.append(_encode(texts, encoder, progress, cache_dir))
    if not numbers and not categories:
        raise DataError(
            "the table has nothing to route by",
            where="columns",
            hint="Name a text, features, category, confidence or score column",
        )
    numbers_NF = np.concatenate([np.zeros((len(table), 0)), *numbers], -1)
    category_NG = _one_hot(table.category, categories, len(table))
    return RouterInputs(numbers_NF, np.concatenate(encodings, -1), category_NG, csr_array(hstack(words)))


def _one_hot(category: NDArray[np.object_] | None, categories: Sequence[str], num_rows: int) -> csr_array:
    if category is None:
        return csr_array((num_rows, len(categories)))
    place_N = pd.Index(categories, dtype=object).get_indexer(category)
    rows = np.flatnonzero(place_N >= 0)
    return csr_array((np.ones(len(rows)), (rows, place_N[rows])), (num_rows, len(categories)))


def _encode(texts: Sequence[str], encoder: Encoder, progress: Progress, cache_dir: Path | None) -> NDArray[np.float64]:
    """Features [N, E]; texts of similar length are encoded together, and the whole column is cached if possible."""
    digest = hashlib.sha256("\0".join([encoder.identity, *texts]).encode())
    file = None if cache_dir is None else cache_dir / f"{digest.hexdigest()}.npy"
    if file and file.is_file():
        return np.asarray(np.load(file, allow_pickle=False), dtype=np.float64)
    features_NE = np.empty((len(texts), encoder.dim))
    order = np.array(sorted(range(len(texts)), key=lambda row: len(texts[row])), dtype=int)
    for start in range(0, len(order), _ENCODED_AT_ONCE):
        rows = order[start : start + _ENCODED_AT_ONCE]
        features_NE[rows] = encoder.encode(contents([texts[row] for row in rows]))
        progress("texts encoded", start + len(rows), len(order))
    if file:
        with suppress(OSError), drafted(file) as draft, draft.open("wb") as opened:  # a read-only folder, a full disk
            np.save(opened, features_NE.astype(np.float32))
    return features_NE


def find_encoder(model: str | None, assets_dir: Path) -> tuple[TextEncoder | None, str]:
    """The encoder by hub id or folder, and a note if there is none.

    None means the default model if it has been fetched; `none` means no encoder. Raises AssetError for a missing model.
    """
    if model == NO_ENCODER:
        return None, ""
    if model is None and not is_intact(assets_dir / DEFAULT_MODEL):
        return None, f"{DEFAULT_MODEL} is not in {assets_dir}: texts are read by hashed words alone; see `kcm assets`"
    config = TextEncoderConfig(model=model or DEFAULT_MODEL, max_length=256)
    return TextEncoder(config, assets_dir), ""


def hashed_words(texts: Sequence[str]) -> csr_array:
    """Counts of words and of word pairs in `NUM_BUCKETS` buckets, rows scaled to length 1 (arXiv 0902.2206)."""
    vectorizer = HashingVectorizer(n_features=NUM_BUCKETS, ngram_range=(1, 2), alternate_sign=False)
    return csr_array(vectorizer.transform(texts))


def text_statistics(texts: Sequence[str]) -> NDArray[np.float64]:
    """Statistics of a text's form that correlate with its difficulty, in logarithms, [N, 17]."""
    return np.log1p(np.array([_statistics(text) for text in texts], dtype=np.float64).reshape(-1, _NUM_STATISTICS))


def _statistics(text: str) -> list[float]:
    words, numbers = text.split(), _NUMBER.findall(text)
    sentences = len(_SENTENCE_END.findall(text))
    return [
        len(text),
        len(words),
        sentences,
        len(words) / max(1, sentences),
        sum(map(len, words)) / max(1, len(words)),
        len({word.lower() for word in words}) / max(1, len(words)),
        len(numbers),
        len(set(numbers)),
        sum(map(len, numbers)),
        sum(letter.isupper() for letter in text),
        text.count(",") + text.count(";") + text.count(":"),
        text.count("\n"),
        text.count("?"),
        text.count("/"),
        sum(text.count(sign) for sign in "%‰"),
        sum(text.count(sign) for sign in "$€£¥"),
        sum("." in number for number in numbers),
    ]
