"""The tables of benchmarks/first_table.py: frozen features, labels, and the texts of language tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.gate_rows import TABLES
from benchmarks.study.features import cached_features
from benchmarks.study.rows import MINILM, at_unit_length
from kcm.encoders import EncoderConfig
from kcm.encoders.image import ImageEncoderConfig
from kcm.encoders.pixels import PixelsConfig
from kcm.inputs.content import Content
from kcm.tasks.readers.reviews import read_reviews

NUM_REVIEWS = 7_000  # of 10,605


@dataclass(frozen=True)
class Table:
    """Features [N, D], labels [N] as numbers, and the texts [N] of a language table."""

    features: np.ndarray
    labels: np.ndarray
    texts: np.ndarray | None = None


@dataclass(frozen=True)
class Places:
    """Where things lie, and where features are kept."""

    assets: Path
    clinc: Path
    banking: Path
    kept: Path


def clinc(places: Places) -> Table:
    """CLINC150 within scope, read by MiniLM."""
    data = json.loads(places.clinc.read_text(encoding="utf-8"))
    return _texts([row for split in ("train", "val", "test") for row in data[split]], places)


def banking(places: Places) -> Table:
    """Questions to a bank, BANKING77, read by MiniLM."""
    return _texts(_bank_questions(places), places)


def words(places: Places) -> Table:
    """The questions to a bank by their words, as ready vectors."""
    texts, intents = zip(*_bank_questions(places), strict=True)
    return Table(reduced_words(texts), _numbers(intents))


def reviews(places: Places) -> Table:
    """Snippets of film reviews, 2 classes, read by MiniLM."""
    read = [row for row in read_reviews(places.assets) if row.task == "movies"]
    rows = [read[row] for row in np.random.default_rng(0).permutation(len(read))[:NUM_REVIEWS]]
    return _texts([(row.text, row.label) for row in rows], places)


def emoji(places: Places) -> Table:
    """One artist's emoji in their categories, read by an EfficientNet."""
    pictures, labels = _pictures(places.assets / "emoji/pictures.parquet", "google")
    return Table(_encoded(ImageEncoderConfig(model="efficientnet-lite2", side=96), pictures, places), labels)


def fashion(places: Places) -> Table:
    """Fashion-MNIST, 784 pixels a row."""
    pictures, labels = _pictures(places.assets / "fashion-mnist/pictures.parquet", "fashion")
    return Table(_encoded(PixelsConfig(side=28, color="grey"), pictures, places), labels)


def numbers(name: str, _: Places) -> Table:
    """One of the tables of numbers of benchmarks/gate_rows.py."""
    values, labels, _machine = TABLES[name]()
    return Table(values.astype(np.float32), labels)


def reduced_words(texts: Sequence[str]) -> np.ndarray:
    """TF-IDF of words and pairs of words, reduced to 256 numbers at unit length, [N, 256]."""
    counted = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit_transform(texts)
    return at_unit_length(TruncatedSVD(256, random_state=0).fit_transform(counted))


READERS: Mapping[str, Callable[[Places], Table]] = {
    "clinc": clinc,
    "banking": banking,
    "words": words,
    "reviews": reviews,
    "emoji": emoji,
    "fashion": fashion,
    **{name: partial(numbers, name) for name in TABLES},
}


def _bank_questions(places: Places) -> list[tuple[str, str]]:
    frame = pd.concat([pd.read_csv(places.banking / f"{split}.csv") for split in ("train", "test")])
    return [(str(text), str(intent)) for text, intent in frame.to_numpy()]


def _texts(rows: Sequence[Sequence[str]], places: Places) -> Table:
    """Texts and labels, by MiniLM."""
    texts, labels = zip(*rows, strict=True)
    features = _encoded(MINILM, [Content(text=text) for text in texts], places)
    return Table(features, _numbers(labels), np.array(texts, dtype=object))


def _pictures(path: Path, task: str) -> tuple[list[Content], np.ndarray]:
    """The pictures of one task, and their labels as numbers."""
    rows = pq.read_table(path, columns=["image", "label"], filters=[("task", "=", task)])
    return [Content(image=image) for image in rows["image"].to_pylist()], _numbers(rows["label"].to_pylist())


def _encoded(encoder: EncoderConfig, rows: list[Content], places: Places) -> np.ndarray:
    """Features at unit length, [N, D], from the disk where they are there."""
    found = cached_features(rows, lambda: encoder.build(places.assets), encoder.identity(places.assets), places.kept)
    return at_unit_length(np.stack([found[content] for content in rows]))


def _numbers(labels: Sequence[object]) -> np.ndarray:
    return np.unique(np.array(labels), return_inverse=True)[1]
