"""Seeded draws by name instead of by a generator: the same on every machine, in any order of the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def draw(seed: int | str, purpose: str, name: str) -> float:
    """A number in [0, 1), uniform over names and independent between purposes."""
    digest = hashlib.blake2b(f"{seed}\0{purpose}\0{name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def shuffled(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """The names in an order drawn by the seed."""
    return sorted(names, key=lambda name: (draw(seed, purpose, name), name))
