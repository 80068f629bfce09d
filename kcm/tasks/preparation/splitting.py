"""The first passes over the blocks: duplicates out, splits drawn, and out again what would lie in two splits. N rows.

    assign    duplicates out, splits drawn, roles of contents and groups
    settle    overlapping rows out, all that is left out listed, labels and task values found

Between them, what digests share is merged bucket by bucket (`exchange`). A pass is a function of one block and a few
small values; it leaves files beside the block and gives back counts: whoever runs it, in whatever process, holds
nothing that grows with the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kcm.inputs.content import PARTS
from kcm.tasks.plan.splits import SPLITS, Split, drawn_splits
from kcm.tasks.preparation.blocks import Block, Facts
from kcm.tasks.preparation.exchange import Findings, RecordFile, records_of
from kcm.tasks.preparation.overlap import Status, judge, reason, roles

_TRAIN = SPLITS.index("train")
_STATE = np.dtype([("split", "i1"), ("status", "u1"), ("owner", "i1"), ("repeats", "?")])
_LEFT_OUT = pa.schema([("position", pa.int64()), ("id", pa.string()), ("reason", pa.string()), ("is_bad", pa.bool_())])

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Assigned:
    """What `assign` found of a block: rows with a duplicate id, and the roles of contents and of groups."""

    num_duplicates: int
    contents: RecordFile
    groups: RecordFile


def assign(
    block: Block, duplicates: Sequence[Path], origins: Collection[int], fractions: Mapping[Split, float]
) -> Assigned:
    """Draw the splits of a block's rows, given the ids that several rows have, and the given splits of all rows."""
    facts = block.facts()
    pool_N = _is_pool(facts)
    state_N = np.zeros(len(facts), _STATE)
    state_N["split"] = np.where(pool_N, _TRAIN, drawn_splits(facts.draw, facts.origin, origins, fractions))
    if duplicates:
        first_N = Findings.read(duplicates).values(facts.ids)
        state_N["status"][(first_N != 0) & (first_N != facts.index.astype(np.uint64))] = Status.DUPLICATE
    state_N.tofile(block.file("state"))
    kept_N = state_N["status"] == Status.KEPT
    role_N = roles(facts.origin, state_N["split"], pool_N)
    grouped_N = kept_N & facts.grouped
    return Assigned(
        int(np.count_nonzero(~kept_N)),
        RecordFile.write(block.file("contents"), records_of(facts.content[kept_N], role_N[kept_N], np.bitwise_or)),
        RecordFile.write(block.file("groups"), records_of(facts.unit[grouped_N], role_N[grouped_N], np.bitwise_or)),
    )


@dataclass(frozen=True)
class Settled:
    """What `settle` found of a block: overlapping rows, rows without a group whose content others have as well, and the
    pairs of task value and label of those that are kept.

    The pairs come in the order of their first rows, without those of rows that have no label.
    """

    num_overlapping: int
    num_repeating: int
    cells: tuple[tuple[str, str], ...]


def settle(block: Block, contents: Sequence[Path], groups: Sequence[Path]) -> Settled:
    """Leave out rows that share a content or a group with another split, given the contents that several rows have, and
    the groups that several splits have; rows of equal content without a group become a unit.

    All rows left out of the block, bad ones too, are listed in its file `left-out`.
    """
    facts, state_N = block.facts(), states(block)
    kept_N = state_N["status"] == Status.KEPT
    if contents or groups:
        of_group_N = np.where(facts.grouped, Findings.read(groups).values(facts.unit), np.uint64(0))
        of_content_N = Findings.read(contents).values(facts.content)
        status_N, owner_N = judge(facts.origin, state_N["split"], _is_pool(facts), of_content_N, of_group_N)
        state_N["status"][kept_N], state_N["owner"][kept_N] = status_N[kept_N], owner_N[kept_N]
        state_N["repeats"] = (of_content_N != 0) & ~facts.grouped
        state_N.tofile(block.file("state"))
    _list_left_out(block, facts, state_N)
    still_N = state_N["status"] == Status.KEPT
    return Settled(
        int(np.count_nonzero(kept_N & ~still_N)),
        int(np.count_nonzero(still_N & state_N["repeats"])),
        tuple(_cells(facts, still_N)),
    )


def left_out(block: Block) -> pa.Table:
    """The rows left out of a block in their order: position in the shard, id, reason, and whether the row is bad."""
    with pa.memory_map(str(block.file("left-out"))) as file:
        return pa.ipc.open_file(file).read_all()


def states(block: Block) -> NDArray[np.void]:
    """The split of every usable row of a block, its status, and the split that it shares something with, [N]."""
    return np.fromfile(block.file("state"), _STATE)


def _is_pool(facts: Facts) -> Mask:
    """Rows without a label, which cleaning lets pass only where they are wanted."""
    code_N, labels = facts.coded("label")
    return np.array([label == "" for label in labels], dtype=bool)[code_N]


def _cells(facts: Facts, kept_N: Mask) -> Iterator[tuple[str, str]]:
    """Pairs of task value and label, in the order of their first rows."""
    (task_N, tasks), (label_N, labels) = facts.coded("task"), facts.coded("label")
    pair_N = task_N[kept_N].astype(np.int64) * len(labels) + label_N[kept_N]
    pairs, firsts = np.unique(pair_N, return_index=True)
    for pair in pairs[np.argsort(firsts)].tolist():
        if label := labels[pair % len(labels)]:
            yield tasks[pair // len(labels)], label


def _list_left_out(block: Block, facts: Facts, state_N: NDArray[np.void]) -> None:
    dropped = np.flatnonzero(state_N["status"] != Status.KEPT)
    payload = block.payload()
    part = " and ".join(part for part in PARTS if part in payload.column_names)
    found = {
        "position": facts.position[dropped],
        "id": payload["id"].take(pa.array(dropped)),
        "reason": [
            reason(Status(status), owner, part)
            for status, owner in zip(state_N["status"][dropped], state_N["owner"][dropped], strict=True)
        ],
        "is_bad": state_N["status"][dropped] == Status.DUPLICATE,
    }
    faults = block.faults()
    faults = faults.append_column("is_bad", pa.array(np.ones(len(faults), dtype=bool)))
    table = pa.concat_tables([faults.cast(_LEFT_OUT), pa.table(found).cast(_LEFT_OUT)]).sort_by("position")
    with pa.ipc.new_file(str(block.file("left-out")), _LEFT_OUT) as writer:
        writer.write_table(table)
