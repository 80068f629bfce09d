"""Which rows share a content or a group with another split, and have to go.

A role says in what split, and by what right, a digest occurs: a bit for each given split (or none) and each final one,
and a bit for rows without a label. The roles of all rows with a digest are joined by a shuffle; a row is judged by
its own role and those of its content and its group. N rows.

Of given splits the purer one keeps what it shares: test, then certify, then validate. Of drawn ones train does, then
validate and certify: what has taught once cannot measure.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from kcm.tasks.plan.splits import NOT_GIVEN, SPLITS

Roles = NDArray[np.uint64]
_PUREST_FIRST = [SPLITS.index(split) for split in ("test", "certify", "validate", "train")]
_LABELLED = np.uint64((1 << len(SPLITS) * (len(SPLITS) + 1)) - 1)
_POOL = np.uint64(1 << len(SPLITS) * (len(SPLITS) + 1))


class Status(IntEnum):
    """What became of a usable row."""

    KEPT = 0
    DUPLICATE = 1
    IMPURE = 2  # a purer given split has its content or group
    BRIDGING = 3  # another drawn split has its content
    LABELLED = 4  # it has no label, and a row with one has its content


def roles(origin_N: NDArray[np.int8], split_N: NDArray[np.int8], pool_N: NDArray[np.bool_]) -> Roles:
    """The role of every row: one bit."""
    return np.where(pool_N, _POOL, np.uint64(1) << (origin_N * len(SPLITS) + split_N).astype(np.uint64))


def judge(
    origin_N: NDArray[np.int8],
    split_N: NDArray[np.int8],
    pool_N: NDArray[np.bool_],
    of_content_N: Roles,
    of_group_N: Roles,
) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """The status of every row, and the split that it shares something with, as a place in SPLITS.

    `of_content_N` and `of_group_N` are the roles of all rows with the row's content or group, 0 where no other row
    has the one, or no other role the other.
    """
    status_N = np.full(len(origin_N), Status.KEPT, dtype=np.uint8)
    owner_N = np.full(len(origin_N), -1, dtype=np.int8)

    def drop(chosen_N: NDArray[np.bool_], status: Status, owner: int) -> None:
        fresh_N = chosen_N & (status_N == Status.KEPT)
        status_N[fresh_N], owner_N[fresh_N] = status, owner

    touched_N = (of_content_N | of_group_N) != 0
    if not touched_N.any():
        return status_N, owner_N
    rank_N = np.array([*(_PUREST_FIRST.index(split) for split in range(len(SPLITS))), len(SPLITS)])[origin_N]
    for of_N in (of_content_N, of_group_N):  # the content is the first reason
        for rank, split in enumerate(_PUREST_FIRST):
            drop(~pool_N & (rank_N > rank) & _of_origin(of_N, split), Status.IMPURE, split)
    for split in range(len(SPLITS)):
        ours_N = of_content_N >> (origin_N.astype(np.uint64) * np.uint64(len(SPLITS)) + np.uint64(split))
        drop(~pool_N & (split_N > split) & (ours_N & np.uint64(1) != 0), Status.BRIDGING, split)
    drop(pool_N & _in_split(of_content_N, SPLITS.index("train")), Status.LABELLED, SPLITS.index("train"))
    for of_N in (of_content_N, of_group_N):
        for split in _PUREST_FIRST[:-1]:
            drop(pool_N & _in_split(of_N, split), Status.IMPURE, split)
    return status_N, owner_N


def _of_origin(of_N: Roles, origin: int) -> NDArray[np.bool_]:
    """Which digests a labelled row of a given split has."""
    bits = np.uint64(((1 << len(SPLITS)) - 1) << origin * len(SPLITS))
    return np.asarray((of_N & bits) != 0)


def _in_split(of_N: Roles, split: int) -> NDArray[np.bool_]:
    """Which digests a labelled row that ends in a split has."""
    bits = np.uint64(sum(1 << origin * len(SPLITS) + split for origin in range(NOT_GIVEN + 1)))
    return np.asarray((of_N & _LABELLED & bits) != 0)


def reason(status: Status, owner: int, part: str) -> str:
    """Why a row is left out, for a person; `part` names what a row's content is."""
    match status:
        case Status.DUPLICATE:
            return "duplicate id"
        case Status.IMPURE:
            return f"its {part} or group is also in split {SPLITS[owner]}"
        case Status.BRIDGING:
            return f"its {part} is also in split {SPLITS[owner]}"
        case Status.LABELLED:
            return "its content is also in a labelled row"
        case Status.KEPT:
            raise AssertionError("a row that is kept has no reason")
