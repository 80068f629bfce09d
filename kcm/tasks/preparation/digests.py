"""Digests of contents and groups, for many rows at once: they tell what rows share, and splits are drawn by them.

A digest is 128 bits of SHA-256, as structured numpy values that compare and sort, in two halves. N rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pandas.util import hash_array

from kcm.inputs.content import Content
from kcm.tasks.units import content_key, text_key

DIGEST = np.dtype([("high", "<u8"), ("low", "<u8")])
NONE = np.zeros(1, DIGEST)[0]  # of rows without a group
_ID_KEYS = ("ids, upper half:", "ids, lower half:")  # 16 bytes each
_PLAIN_SPACES = r"[\x00-\x1f\x7f]|^ | $|  "  # what an ASCII text must be free of to have its own key, but for case


def text_keys(texts: pa.Array) -> pa.Array:
    """The `text_key` of every text; ASCII ones, which are most, in one pass."""
    keys = pc.ascii_lower(texts)
    odd = pc.or_(pc.invert(pc.string_is_ascii(texts)), pc.match_substring_regex(texts, _PLAIN_SPACES))
    if not pc.any(odd).as_py():
        return keys
    mended = [text_key(text) for text in texts.filter(odd).to_pylist()]
    return pc.replace_with_mask(keys, odd, pa.array(mended, pa.string()))


def content_names(rows: pa.Table, keys: pa.Array) -> list[str]:
    """The content of every row as 32 hexadecimal digits of its `unit_digest`; `keys` are the `text_keys` of its texts.

    `image` and `vector` are looked at where `rows` has these columns.
    """
    others = [name for name in ("image", "vector") if name in rows.column_names]
    if not others:
        return _names(pc.binary_join_element_wise("text", keys, "\0").to_pylist())
    names: list[str] = []
    for batch in rows.select(["text", *others]).to_batches(max_chunksize=1024):  # pictures are large
        names += _names([content_key(content) for content in _contents(batch)])
    return names


def group_names(groups: pa.Array) -> NDArray[np.object_]:
    """The group of every row as 32 hexadecimal digits of its `unit_digest`, [N]; "" for rows that stand alone."""
    distinct = pc.dictionary_encode(groups)
    values = distinct.dictionary.to_pylist()
    named = [_names([f"group\0{group}"])[0] if group else "" for group in values]
    return np.asarray(np.array(named, dtype=object)[distinct.indices.to_numpy()])


def id_digests(ids: pa.ChunkedArray) -> NDArray[np.void]:
    """The digest of every id, [N]: two SipHashes, which are quicker. Nothing but duplicates is found by it."""
    values = np.asarray(ids, dtype=object)
    digests = np.empty(len(values), DIGEST)
    for half, key in zip(("high", "low"), _ID_KEYS, strict=True):
        digests[half] = hash_array(values, hash_key=key, categorize=False)
    return digests


def as_digests(names: Sequence[str]) -> NDArray[np.void]:
    """Names of 32 hexadecimal digits as digests, [N]; `NONE` for ""."""
    whole = [name or "0" * 32 for name in names]
    return np.frombuffer(bytes.fromhex("".join(whole)), DIGEST)


def as_names(digests: NDArray[np.void]) -> list[str]:
    """The names that `as_digests` was given, but "" as zeros."""
    text = np.ascontiguousarray(digests).tobytes().hex()
    return [text[start : start + 32] for start in range(0, len(text), 32)]


def _names(keys: Iterable[str]) -> list[str]:
    return [sha256(key.encode(errors="surrogatepass")).hexdigest()[:32] for key in keys]


def _contents(batch: pa.RecordBatch) -> list[Content]:
    columns = {name: batch.column(name).to_pylist() for name in batch.schema.names if name != "vector"}
    count = batch.num_rows
    vectors: Sequence[NDArray[np.float32] | None] = [None] * count
    if "vector" in batch.schema.names:
        column = batch.column("vector")
        vectors = column.flatten().to_numpy().reshape(count, column.type.list_size)
    images = columns.get("image", [b""] * count)
    return [
        Content(text, image, vector=vector)
        for text, image, vector in zip(columns["text"], images, vectors, strict=True)
    ]
