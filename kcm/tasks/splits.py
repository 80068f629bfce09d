"""The split of a row: a function of its unit and a salt, and of nothing else.

The unit of a row is its group, or else its content (text, picture or vector). Rows added later change no split. Splits
that the data bring are kept. Draws are seeded by name, not by a generator: they are the same on every machine and in
any order of the rows. N rows or names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator


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


Split = Literal["train", "validate", "certify", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
NOT_GIVEN = -1  # the origin of a row whose split is drawn; sorts before given splits


def _whole(fractions: dict[Split, float]) -> dict[Split, float]:
    if missing_splits := [split for split in SPLITS if split not in fractions]:
        raise ValueError(f"no fraction for {', '.join(missing_splits)}")
    if fractions["train"] <= 0 or min(fractions.values()) < 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(
            "train must be positive, no fraction negative, and the fractions must sum to 1, not to"
            f" {sum(fractions.values()):g}"
        )
    return fractions


Fractions = Annotated[dict[Split, float], AfterValidator(_whole)]
DEFAULT_FRACTIONS: dict[Split, float] = {"train": 0.5, "validate": 0.15, "certify": 0.15, "test": 0.2}
# For a learner with left-out scores of its train rows: the train rows replace validate rows.
LEFT_OUT_FRACTIONS: dict[Split, float] = {"train": 0.65, "validate": 0.0, "certify": 0.25, "test": 0.1}


def purpose(salt: str, unit: str, fractions: Mapping[Split, float]) -> Split:
    """The split of a unit by its name alone; a service's decisions get their purpose by the same rule.

    Nothing is stratified, and units that arrive later change no other unit's split. Another `salt` draws all splits
    again.
    """
    draw_N = np.array([draw(salt, "purpose", unit)])
    return SPLITS[int(drawn_splits(draw_N, np.array([NOT_GIVEN]), {NOT_GIVEN}, fractions)[0])]


def drawn_splits(
    draw_N: NDArray[np.float64],
    origin_N: NDArray[np.integer],
    origins: Collection[int],
    fractions: Mapping[Split, float],
) -> NDArray[np.int8]:
    """The split of every row as an index into SPLITS, drawn by its unit.

    `origin_N` are given splits as indices into SPLITS, or NOT_GIVEN; `origins` are those that occur anywhere. Missing
    certify rows are taken from the given validate rows, other missing splits from the given train rows.
    """
    split_N = np.empty(len(draw_N), dtype=np.int8)
    for origin in np.unique(origin_N):
        choices = _choices(int(origin), origins)
        ends = np.cumsum([fractions[split] for split in choices])
        of_origin = origin_N == origin
        choice_N = np.searchsorted(ends[:-1] / ends[-1], draw_N[of_origin], side="right")
        split_N[of_origin] = np.array([SPLITS.index(split) for split in choices])[choice_N]
    return split_N


def _choices(origin: int, origins: Collection[int]) -> list[Split]:
    """The splits that share the rows of a given split."""
    if origin == NOT_GIVEN:
        return list(SPLITS)
    missing_splits = [split for number, split in enumerate(SPLITS) if number not in origins]
    match SPLITS[origin]:
        case "train":
            carved_elsewhere = {"certify"} if SPLITS.index("validate") in origins else set()
            return ["train", *(split for split in missing_splits if split not in carved_elsewhere)]
        case "validate":
            return ["validate", *(split for split in missing_splits if split == "certify")]
        case split:
            return [split]
