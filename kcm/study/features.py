"""Features of the rows of a study, encoded once and cached on disk by their fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from kcm.encoders import Encoder
from kcm.errors import ArtefactError, DataError
from kcm.inputs.content import Content

_CHUNK = 512  # rows between two updates of the progress


def cached_features(
    rows: Iterable[Content],
    encoder: Callable[[], Encoder],
    identity: str,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Content, np.ndarray]:
    """Float32 features [D] by content, each encoded once; `encoder` loads the model, and only where it is needed.

    `identity` is the encoder's. Raises DataError, naming it, when the encoder gives a NaN.
    """
    by_key = {content.key: content for content in rows}
    keys = sorted(by_key)
    unique = [by_key[key] for key in keys]
    digest = hashlib.sha256("\0".join([identity, *keys]).encode()).hexdigest()[:32]
    path = folder / f"features-{digest}.npy"
    vectors_ND = _read(path)
    if vectors_ND is None or len(vectors_ND) != len(unique):
        vectors_ND = _encode(unique, encoder(), progress)
        _write(path, vectors_ND)
    return dict(zip(unique, vectors_ND, strict=True))


def _encode(rows: list[Content], encoder: Encoder, progress: Callable[[int, int], None] | None) -> np.ndarray:
    # Encoders batch texts of like length, so let every chunk have texts of like length.
    order = np.argsort([content.size for content in rows], kind="stable")
    vectors_ND = np.empty((len(rows), encoder.dim), dtype=np.float32)
    for start in range(0, len(rows), _CHUNK):
        index = order[start : start + _CHUNK]
        vectors_ND[index] = encoder.encode([rows[i] for i in index])
        if progress is not None:
            progress(start + len(index), len(rows))
    if len(bad := np.flatnonzero(~np.isfinite(vectors_ND).all(axis=1))):
        raise DataError(f"the encoder gave NaN for {len(bad)} rows, such as {rows[bad[0]].key[:60]!r}")
    return vectors_ND


def _read(path: Path) -> np.ndarray | None:
    try:
        vectors: np.ndarray = np.load(path, allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return vectors


def _write(path: Path, vectors_ND: np.ndarray) -> None:
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            np.save(stream, vectors_ND)
        partial.replace(path)
    except OSError as error:
        raise ArtefactError(f"cannot store features: {error.strerror}", where=str(path)) from None
