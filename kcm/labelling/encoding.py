"""The vectors of a table's texts: a frozen encoder's, or the texts' own words.

Shapes: U texts, D coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kcm.encoders import EncoderConfig
from kcm.encoders.text import TextEncoderConfig
from kcm.encoders.words import fit_words
from kcm.errors import AssetError
from kcm.inputs.content import Content

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
_MAX_FITTED = 50_000
_CHUNK = 2048  # texts that are encoded together; a constant, since a network's vectors may depend on their company

Encode: TypeAlias = Callable[[Sequence[str]], NDArray[np.floating]]
Mapper: TypeAlias = Callable[[Callable[[], Encode], Sequence[Sequence[str]]], Iterable[NDArray[np.floating]]]
"""Maps lists of texts to their vectors, in order, by functions that each worker builds once."""


def named_encoder(name: str, assets_dir: Path) -> EncoderConfig | None:
    """The text encoder of a hub id or folder; None for `words`. `auto` is MiniLM if it loads, otherwise words."""
    if name == "words":
        return None
    config = TextEncoderConfig(model=DEFAULT_ENCODER if name == "auto" else name)
    try:
        config.identity(assets_dir)
    except AssetError:
        if name != "auto":
            raise
        return None
    return config


def word_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors [U, D] of words and pairs of words, see `kcm.encoders.words`; zero for texts without a known word.

    All texts of the table weigh the words, since no label is needed for that.
    """
    chosen = np.random.default_rng(0).permutation(len(texts))[:_MAX_FITTED]
    words = fit_words([texts[place] for place in chosen])
    if words is None:
        return np.zeros((len(texts), 1), dtype=np.float32)
    return _stacked(map(words.encode, _parts(texts)), len(texts))


def in_process(build: Callable[[], Encode], parts: Sequence[Sequence[str]]) -> Iterator[NDArray[np.floating]]:
    """The `Mapper` of this process."""
    return map(build(), parts)


def encoded(
    texts: Sequence[str], encoder: EncoderConfig | None, assets_dir: Path, mapper: Mapper = in_process
) -> NDArray[np.float32]:
    """Vectors [U, D] of unit length; without an encoder, vectors of the words, by this process.

    They do not depend on `mapper`, if all its machines have the same kind of CPU, or GPU.
    """
    if encoder is None:
        return word_vectors(texts)
    return _stacked(mapper(partial(text_encoder, encoder, assets_dir), _parts(texts)), len(texts))


def text_encoder(encoder: EncoderConfig, assets_dir: Path, device: str = "cpu") -> Encode:
    """A function from texts to their vectors."""
    model = encoder.build(assets_dir, device)
    return lambda texts: model.encode([Content(text) for text in texts])


def _parts(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]


def _stacked(parts: Iterable[NDArray[np.floating]], num_texts: int) -> NDArray[np.float32]:
    """All vectors, at unit length, in one array that is filled part by part: memory holds them once."""
    vectors_UD, start = np.empty((0, 0), dtype=np.float32), 0
    for part_nD in parts:
        if not start:
            vectors_UD = np.empty((num_texts, part_nD.shape[1]), dtype=np.float32)
        vectors_UD[start : start + len(part_nD)] = _unit(part_nD)
        start += len(part_nD)
    return vectors_UD


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), dtype=np.float32)
