"""Seeded draws by name, not by a generator: the same on every machine and in any order of the rows.

N names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def draw(seed: int | str, purpose: str, name: str) -> float:
    """A number in [0, 1), uniform over names and independent between purposes."""
    return float(draws(seed, purpose, [name])[0])


def draws(seed: int | str, purpose: str, names: Iterable[str]) -> NDArray[np.float64]:
    """The `draw` of every name, [N]: the upper 53 bits of a 64-bit BLAKE2b."""
    digest, prefix = hashlib.blake2b, f"{seed}\0{purpose}\0"
    digests = b"".join([digest((prefix + name).encode(), digest_size=8).digest() for name in names])
    return (np.frombuffer(digests, ">u8") >> np.uint64(11)) / 2**53


def shuffled(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """The names in an order drawn by the seed."""
    return sorted(names, key=lambda name: (draw(seed, purpose, name), name))


def row_key(seed: int, row_id: str) -> int:
    """A 63-bit hash of (seed, id), uniform and the same on every machine."""
    digest = hashlib.blake2b(f"{seed}\0{row_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
