"""Units: rows that must stay together because they share their content or their group."""

from __future__ import annotations

import hmac
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kcm.inputs.content import Content, image_digest
from kcm.tasks.rows import Row


@dataclass(frozen=True)
class Unit:
    """Rows, by position, connected by shared content or group. `name` stays when rows are added to its groups."""

    name: str
    positions: tuple[int, ...]
    num_groups: int


def content_key(row: Row | Content) -> str:
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


def find_units(rows: Sequence[Row], positions: Sequence[int]) -> list[Unit]:
    """The units of the rows at `positions`, in the order of their first rows."""
    keys: dict[str, int] = {}
    edges: list[tuple[int, int]] = []
    for node, position in enumerate(positions):
        row = rows[position]
        names = [content_key(row), *([f"group\0{row.group}"] if row.group else [])]
        edges.extend((node, keys.setdefault(name, len(keys))) for name in names)
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    size = len(positions) + len(keys)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], len(positions) + ends[:, 1])), shape=(size, size))
    _, component = connected_components(graph.tocsr(), directed=False)

    members: dict[int, list[int]] = {}
    for position, number in zip(positions, component, strict=False):
        members.setdefault(int(number), []).append(position)
    names_of: dict[int, list[str]] = {}
    for name, index in keys.items():
        names_of.setdefault(int(component[len(positions) + index]), []).append(name)
    return [
        # "group" sorts before "image" and "text": a unit with groups is called by the first of them.
        Unit(min(names_of[number]), tuple(rows_of), sum(name.startswith("group\0") for name in names_of[number]))
        for number, rows_of in members.items()
    ]
