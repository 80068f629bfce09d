"""Units: rows that must stay together because they share their content or their group."""

from __future__ import annotations

import hmac
import unicodedata
from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from kcm.inputs.content import Content, image_digest


def content_key(row: Content) -> str:
    """A key that rows of equal content share, from the bytes of picture and vector, and the text's key.

    A picture that was encoded again has another key.
    """
    parts = [f"image\0{image_digest(row.image)}"] if row.image else []
    if row.vector is not None:
        parts.append(f"vector\0{sha256(row.vector.tobytes()).hexdigest()}")
    if row.text or not parts:
        parts.append(f"text\0{text_key(row.text)}")
    return "\0".join(parts)


def text_key(text: str) -> str:
    """The text without differences of case, character width and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def unit_digest(content: Content, group: str = "") -> bytes:
    """A digest of the unit of one input alone, which is its group, else its content."""
    return sha256((f"group\0{group}" if group else content_key(content)).encode(errors="surrogatepass")).digest()


def unit_of(digest: bytes, key: bytes) -> str:
    """The name of a unit in a log, a keyed hash in 32 hexadecimal digits: it tells nothing to who has no `key`."""
    return hmac.digest(key, digest, "sha256")[:16].hex()


def connected_units(contents: Sequence[str], groups: Sequence[str]) -> list[str]:
    """The name of every row's unit, where rows that share a text or a group, directly or through others, are one.

    A row without a group ("") is connected by its text alone. A unit with groups is called by the first of them.
    """
    from scipy.sparse import coo_array  # takes its time to import, and who names single units needs no graph
    from scipy.sparse.csgraph import connected_components

    keys: dict[str, int] = {}
    edges: list[tuple[int, int]] = []
    for row, (content, group) in enumerate(zip(contents, groups, strict=True)):
        names = [content_key(Content(content)), *([f"group\0{group}"] if group else [])]
        edges.extend((row, keys.setdefault(name, len(keys))) for name in names)
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    size = len(contents) + len(keys)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], len(contents) + ends[:, 1])), shape=(size, size))
    _, component = connected_components(graph.tocsr(), directed=False)
    names_of: dict[int, str] = {}
    for name, index in keys.items():  # "group" sorts before "text"
        number = int(component[len(contents) + index])
        names_of[number] = min(name, names_of.get(number, name))
    return [names_of[int(number)] for number in component[: len(contents)]]
