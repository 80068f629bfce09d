"""Digests of units as a set that takes 16 bytes for each: a bundle names all units that it was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

import numpy as np
from numpy.typing import NDArray

SIZE = 16  # bytes of a digest, half as many as its hexadecimal digits


class UnitDigests(Set[str]):
    """A set of digests, 32 hexadecimal digits each, in order. U of them."""

    def __init__(self, packed_U16: NDArray[np.uint8]) -> None:
        """The digests as bytes [U, 16], in any order and as often as they come."""
        rows = np.ascontiguousarray(packed_U16, dtype=np.uint8).reshape(-1, SIZE)
        self._sorted = np.unique(rows.view(f"S{SIZE}")[:, 0]) if len(rows) else np.empty(0, f"S{SIZE}")

    @classmethod
    def of(cls, digests: Iterable[str]) -> UnitDigests:
        """The set of some digests."""
        if isinstance(digests, UnitDigests):
            return digests
        packed = bytearray()
        for digest in digests:
            packed += bytes.fromhex(digest)
        return cls(np.frombuffer(packed, np.uint8).reshape(-1, SIZE))

    @property
    def packed(self) -> NDArray[np.uint8]:
        """The digests as bytes [U, 16], in order."""
        return self._sorted.view(np.uint8).reshape(-1, SIZE)

    def __contains__(self, digest: object) -> bool:
        try:
            sought = np.frombuffer(bytes.fromhex(str(digest)), f"S{SIZE}")
        except ValueError:  # a name of another kind
            return False
        place = int(np.searchsorted(self._sorted, sought[0])) if len(sought) == 1 else len(self._sorted)
        return place < len(self._sorted) and bool(self._sorted[place] == sought[0])

    def __iter__(self) -> Iterator[str]:
        return (bytes(digest).hex() for digest in self.packed)

    def __len__(self) -> int:
        return len(self._sorted)
