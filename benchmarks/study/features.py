"""Features of a benchmark's rows, encoded once and kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from kcm.encoders import Encoder
from kcm.errors import DataError
from kcm.inputs.content import Content

_CHUNK = 512  # rows per read


def cached_features(
    rows: Iterable[Content], encoder: Callable[[], Encoder], identity: str, folder: Path
) -> dict[Content, np.ndarray]:
    """Float32 features [D] by content, each encoded once; `encoder` loads the model only if needed.

    `identity` is the encoder's. Raises DataError, naming it, when the encoder gives a NaN.
    """
    by_key = {content.key: content for content in rows}
    keys = sorted(by_key)
    unique = [by_key[key] for key in keys]
    digest = hashlib.sha256("\0".join([identity, *keys]).encode()).hexdigest()[:32]
    path = folder / f"features-{digest}.npy"
    if not path.exists():
        vectors_ND = _encode(unique, encoder())
        folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.npy")
        np.save(draft, vectors_ND)
        draft.replace(path)  # whole or not at all
    return dict(zip(unique, np.load(path), strict=True))


def _encode(rows: list[Content], encoder: Encoder) -> np.ndarray:
    # Encoders batch texts of like length, so let every chunk have texts of like length.
    order = np.argsort([content.size for content in rows], kind="stable")
    vectors_ND = np.empty((len(rows), encoder.dim), dtype=np.float32)
    for start in range(0, len(rows), _CHUNK):
        index = order[start : start + _CHUNK]
        vectors_ND[index] = encoder.encode([rows[i] for i in index])
    if len(bad_rows := np.flatnonzero(~np.isfinite(vectors_ND).all(axis=1))):
        raise DataError(f"the encoder gave NaN for {len(bad_rows)} rows, such as {rows[bad_rows[0]].key[:60]!r}")
    return vectors_ND
