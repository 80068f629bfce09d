"""The tables of benchmarks/first_table.py: frozen features, labels, and what the large model reads of the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from gate_rows import TABLES
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from study.data import cached_features

from kcm.encoders import EncoderConfig
from kcm.encoders.image import ImageEncoderConfig
from kcm.encoders.pixels import PixelsConfig
from kcm.encoders.text import TextEncoderConfig
from kcm.inputs.content import Content
from kcm.tasks.readers.reviews import read_reviews

NUM_REVIEWS = 7_000  # of 10,605: mpnet reads them all, on two cores
MINILM = TextEncoderConfig(model="sentence-transformers/all-MiniLM-L6-v2")


@dataclass(frozen=True)
class Table:
    """Features [N, D], labels [N] as numbers, and the features [N, E] that the large model learns from."""

    features: np.ndarray
    labels: np.ndarray
    large_features: np.ndarray
    large: Callable[[], ClassifierMixin]
    cells: tuple[tuple[int, int], ...]  # labels, and rows given


@dataclass(frozen=True)
class Places:
    """Where things lie, and where features are kept."""

    assets: Path
    clinc: Path
    banking: Path
    kept: Path


def clinc(places: Places) -> Table:
    """CLINC150 within scope; the large model is a head on the small side's own features."""
    data = json.loads(places.clinc.read_text(encoding="utf-8"))
    rows = [row for split in ("train", "val", "test") for row in data[split]]
    cells = ((10, 300), (10, 1000), *((30, rows) for rows in (300, 600, 1000, 2000)))
    return _questions(rows, (*cells, (150, 1000), (150, 2000), (150, 5000)), places)


def banking(places: Places) -> Table:
    """Questions to a bank, BANKING77; the large model is a head on the small side's own features."""
    frame = pd.concat([pd.read_csv(places.banking / f"{split}.csv") for split in ("train", "test")])
    return _questions(frame.to_numpy(), ((30, 1000), (30, 2000), (77, 2000), (77, 5000)), places)


def _questions(rows: Sequence[Sequence[str]], cells: tuple[tuple[int, int], ...], places: Places) -> Table:
    """Texts and intents, by MiniLM."""
    features = _encoded(MINILM, [Content(text=text) for text, _ in rows], places)
    return Table(features, _numbers([intent for _, intent in rows]), features, _head, cells)


def reviews(places: Places) -> Table:
    """Snippets of film reviews, 2 classes; the large model is a head on mpnet."""
    read = [row for row in read_reviews(places.assets) if row.task == "movies"]
    rows = [read[row] for row in np.random.default_rng(0).permutation(len(read))[:NUM_REVIEWS]]
    texts = [Content(text=row.text) for row in rows]
    mpnet = TextEncoderConfig(model="sentence-transformers/all-mpnet-base-v2", batch_size=32)
    labels, cells = _numbers([row.label for row in rows]), ((2, 300), (2, 1000), (2, 2000))
    return Table(_encoded(MINILM, texts, places), labels, _encoded(mpnet, texts, places), _head, cells)


def emoji(places: Places) -> Table:
    """One artist's emoji in their categories; the large model is a head on larger pictures."""
    pictures, labels = _pictures(places.assets / "emoji/pictures.parquet", "google")
    small, large = (
        _encoded(ImageEncoderConfig(model="efficientnet-lite2", side=side), pictures, places) for side in (96, 160)
    )
    return Table(small, labels, large, _head, tuple((int(labels.max()) + 1, rows) for rows in (300, 1000)))


def fashion(places: Places) -> Table:
    """Fashion-MNIST, 784 pixels a row; the large model is a support vector machine on them."""
    pictures, labels = _pictures(places.assets / "fashion-mnist/pictures.parquet", "fashion")
    pixels = _encoded(PixelsConfig(side=28, color="grey"), pictures, places)
    return Table(pixels, labels, pixels, SVC, tuple((10, rows) for rows in (300, 1000, 5000, 20_000)))


def numbers(name: str) -> Table:
    """One of the tables of numbers of benchmarks/gate_rows.py, with its support vector machine."""
    values, labels, machine = TABLES[name]()
    features = values.astype(np.float32)
    return Table(
        features, labels, features, lambda: machine, tuple((int(labels.max()) + 1, rows) for rows in (300, 1000))
    )


READERS: Mapping[str, Callable[[Places], Table]] = {
    "clinc": clinc,
    "banking": banking,
    "reviews": reviews,
    "emoji": emoji,
    "fashion": fashion,
    **{name: lambda places, name=name: numbers(name) for name in TABLES},
}


def _head() -> ClassifierMixin:
    return LogisticRegression(C=10, max_iter=1000)


def _pictures(path: Path, task: str) -> tuple[list[Content], np.ndarray]:
    """The pictures of one task, and their labels as numbers."""
    rows = pq.read_table(path, columns=["image", "label"], filters=[("task", "=", task)])
    return [Content(image=image) for image in rows["image"].to_pylist()], _numbers(rows["label"].to_pylist())


def _encoded(encoder: EncoderConfig, rows: list[Content], places: Places) -> np.ndarray:
    """Features at unit length, [N, D], from the disk where they are there."""
    found = cached_features(rows, lambda: encoder.build(places.assets), encoder.identity(places.assets), places.kept)
    features = np.stack([found[content] for content in rows])
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, 1e-12), dtype=np.float32)


def _numbers(labels: list[object]) -> np.ndarray:
    return np.unique(labels, return_inverse=True)[1]
