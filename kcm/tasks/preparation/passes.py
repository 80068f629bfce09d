"""The passes over the blocks of a source, each a function of one block and a few small values.

    clean     a shard of the source -> blocks (kcm.tasks.preparation.blocks)
    assign    duplicates out, splits drawn, roles of contents and groups
    settle    overlapping rows out, all that is left out listed, labels and task values found
    rank      for caps and tails: the units, or rows, that come first
    place     task, split and label of every row; counts
    write     a shard of a task, from the places of its rows

Between them, what digests share is merged bucket by bucket (`exchange`). A pass leaves files beside the block and gives
back counts: whoever runs it, in whatever process, holds nothing that grows with the rows. N rows of a block.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kcm.inputs.content import PARTS
from kcm.inputs.labels import OUT_OF_SCOPE, UNLABELLED
from kcm.tasks.hashing import draws
from kcm.tasks.preparation.blocks import Block, Facts
from kcm.tasks.preparation.digests import as_names
from kcm.tasks.preparation.exchange import Findings, RecordFile, records_of
from kcm.tasks.preparation.overlap import Status, judge, reason, roles
from kcm.tasks.sampling import Ranked, first_ranks
from kcm.tasks.scenarios import TaskPlan
from kcm.tasks.sequence import SCHEMA
from kcm.tasks.shards import GROUP_ROWS, ShardWriter
from kcm.tasks.splits import SPLITS, Split, drawn_splits

NUM_LOTS = 2  # of a task's split: rows with a label of the list, then the others
_TRAIN, _CERTIFY = SPLITS.index("train"), SPLITS.index("certify")
_STATE = np.dtype([("split", "i1"), ("status", "u1"), ("owner", "i1"), ("repeats", "?")])
_PLACE = np.dtype([("row", "<i4"), ("label", "<i4")])
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


@dataclass(frozen=True)
class Placement:
    """What decides the task of a row, and whether it is kept.

    `labels` is the label list; `outside` the label of rows that are out of scope, where they are kept. `caps` and
    `tails` are the ranks from which on rows are left out: of a task's rows (and apart, True, of those without a label),
    and of a task's train rows with a label.
    """

    plan: TaskPlan
    labels: tuple[str, ...]
    outside: str | None
    seed: int
    caps: Mapping[tuple[int, bool], float] = field(default_factory=dict)
    tails: Mapping[tuple[int, int], float] = field(default_factory=dict)


def rank_units(block: Block, placement: Placement, limit: int) -> dict[tuple[int, bool], Ranked]:
    """The first units of each task, and of its rows without a label, as far as `limit` rows go."""
    facts = block.facts()
    task_N, label_N = _members(facts, states(block)["status"] == Status.KEPT, placement)
    rank_N = _unit_ranks(facts, placement.seed)
    pool_N = label_N == UNLABELLED
    return {
        (task, pool): first_ranks(rank_N[chosen_N], limit)
        for task in np.unique(task_N[task_N >= 0]).tolist()
        for pool in (False, True)
        if (chosen_N := (task_N == task) & (pool_N == pool)).any()
    }


def rank_rows(
    block: Block, placement: Placement, sizes: Mapping[tuple[int, int], int]
) -> dict[tuple[int, int], Ranked]:
    """The first train rows of each task and label, as far as `sizes` goes."""
    facts, state_N = block.facts(), states(block)
    task_N, label_N = _chosen(facts, state_N, placement)
    chosen_N = (task_N >= 0) & (label_N >= 0) & (state_N["split"] == _TRAIN)
    rank_N = _row_ranks(block, chosen_N, placement.seed)
    pairs = pd.DataFrame({"task": task_N[chosen_N], "label": label_N[chosen_N]}).drop_duplicates()
    return {
        (task, label): first_ranks(rank_N[chosen_N & (task_N == task) & (label_N == label)], sizes[task, label])
        for task, label in pairs.itertuples(index=False)
    }


@dataclass(frozen=True)
class Placed:
    """Counts of a block's rows.

    `rows` [T * splits * lots] are those of each task, split and lot, in which order their places lie; `cells` those of
    each task, split and label; `lone` and `groups` are the certify rows that stand alone, and the certify groups (64
    bits each), of each task.
    """

    rows: NDArray[np.int64]
    cells: dict[tuple[int, int, int], int]
    lone: dict[int, int]
    groups: dict[int, NDArray[np.uint64]]


def place(block: Block, placement: Placement) -> Placed:
    """Find the task of every row, and write the places of those that are kept: task by task, split by split."""
    facts, state_N = block.facts(), states(block)
    task_N, label_N = _chosen(facts, state_N, placement)
    split_N = state_N["split"].astype(np.int64)
    if placement.tails:
        train_N = (task_N >= 0) & (label_N >= 0) & (split_N == _TRAIN)
        rank_N = _row_ranks(block, train_N, placement.seed)
        for (task, label), stop in placement.tails.items():
            task_N[train_N & (task_N == task) & (label_N == label) & (rank_N >= stop)] = -1
    row_N = np.flatnonzero(task_N >= 0)
    task_N, split_N, label_N = task_N[row_N], split_N[row_N], label_N[row_N]
    segment_N = (task_N * len(SPLITS) + split_N) * NUM_LOTS + (label_N < 0)
    order = np.argsort(segment_N, kind="stable")
    places = np.empty(len(row_N), _PLACE)
    places["row"], places["label"] = row_N[order], label_N[order]
    places.tofile(block.file("places"))
    known_N, shape = label_N >= 0, (len(placement.plan.names), len(SPLITS), len(placement.labels))
    cells, counts = np.unique(
        np.ravel_multi_index((task_N[known_N], split_N[known_N], label_N[known_N]), shape), return_counts=True
    )
    certify_N = split_N == _CERTIFY
    grouped_N, unit_N = (facts.grouped | state_N["repeats"])[row_N], facts.unit["high"][row_N]
    present = np.unique(task_N[certify_N]).tolist()
    return Placed(
        np.bincount(segment_N, minlength=len(placement.plan.names) * len(SPLITS) * NUM_LOTS),
        dict(
            zip(
                zip(*(place.tolist() for place in np.unravel_index(cells, shape)), strict=True),
                counts.tolist(),
                strict=True,
            )
        ),
        {task: int(np.count_nonzero(certify_N & ~grouped_N & (task_N == task))) for task in present},
        {task: np.unique(unit_N[certify_N & grouped_N & (task_N == task)]) for task in present},
    )


@dataclass(frozen=True)
class ShardPlan:
    """A shard of a task: `pieces` are blocks, and the places in them that the shard has, in order, by split."""

    task: int
    shard: int
    pieces: tuple[tuple[Split, Block, int, int], ...]  # split, block, first and last place


def write(job: ShardPlan, folder: Path) -> str:
    """Write a shard, and give the digest of its rows."""
    digest = sha256()
    tables = _rows(job)
    first = next(tables)
    with ShardWriter(folder, job.task, first.schema, first_shard=job.shard) as writer:
        for table in _aligned(first, tables):
            writer.write(table)
            for values in _bytes(table):
                digest.update(values)
    return digest.hexdigest()


def _rows(job: ShardPlan) -> Iterator[pa.Table]:
    """The rows of a shard, some at a time: pictures are large."""
    for split, block, start, stop in job.pieces:
        payload, content_N, repeats_N = block.payload(), block.facts().content, states(block)["repeats"]
        places = np.fromfile(block.file("places"), _PLACE, stop - start, offset=start * _PLACE.itemsize)
        step = GROUP_ROWS if {"image", "vector"} & set(payload.column_names) else 16 * GROUP_ROWS
        for begin in range(0, len(places), step):
            part = places[begin : begin + step]
            rows = payload.take(pa.array(part["row"]))
            columns = {name: rows[name] for name in rows.column_names}
            if (repeats_n := repeats_N[part["row"]]).any():
                names = pa.array([f"content {name}" for name in as_names(content_N[part["row"]])])
                columns["group"] = pc.if_else(pa.array(repeats_n), names, columns["group"])
            columns["label"] = pa.array(part["label"].astype(np.int64))
            columns.setdefault("text", pa.array([""] * len(rows), pa.string()))
            columns["split"] = pa.array([split] * len(rows), pa.string())
            yield pa.table({name: columns[name] for name in (*SCHEMA.names, "vector", "split") if name in columns})


def _aligned(first: pa.Table, others: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in row groups, whatever the pieces in which they come: a digest over them depends on rows alone."""
    waiting = first
    while True:
        whole = len(waiting) - len(waiting) % GROUP_ROWS
        for start in range(0, whole, GROUP_ROWS):
            yield waiting.slice(start, GROUP_ROWS).combine_chunks()
        waiting = waiting.slice(whole)
        more = next(others, None)
        if more is None:
            break
        waiting = pa.concat_tables([waiting, more])
    if len(waiting):
        yield waiting.combine_chunks()


def _bytes(table: pa.Table) -> Iterator[bytes | memoryview]:
    """The values of a row group, column by column, for a digest."""
    for name in table.column_names:
        column = table[name].chunk(0)
        yield name.encode()
        if pa.types.is_fixed_size_list(column.type):
            yield column.flatten().to_numpy().tobytes()
        elif pa.types.is_integer(column.type):
            yield column.to_numpy().tobytes()
        else:
            _, offsets, data = column.buffers()
            width = np.int64 if pa.types.is_large_binary(column.type) else np.int32
            bounds = np.frombuffer(offsets, width)[column.offset : column.offset + len(column) + 1].astype(np.int64)
            yield np.diff(bounds).tobytes()
            if data is not None:
                yield memoryview(data)[bounds[0] : bounds[-1]]


@dataclass(frozen=True)
class Candidates:
    """Rows that could lie in another split under another salt: some of every task and label, [N] each."""

    task: NDArray[np.int64]
    label: NDArray[np.int64]
    origin: NDArray[np.int8]
    unit: NDArray[np.object_]
    content: NDArray[np.object_]

    def join(self, other: Candidates, limit: int) -> Candidates:
        """These and others, again at most `limit` of each task and label."""
        both = {name: np.concatenate([mine, getattr(other, name)]) for name, mine in vars(self).items()}
        row_N = _first_of_each(np.stack([both["task"], both["label"]], axis=1), limit)
        return Candidates(**{name: values[row_N] for name, values in both.items()})


def candidates(block: Block, placement: Placement, limit: int) -> Candidates:
    """At most `limit` rows of each task and label."""
    facts, state_N = block.facts(), states(block)
    free_N = np.isin(state_N["status"], (Status.KEPT, Status.BRIDGING))
    task_N, label_N = _capped(facts, free_N, placement)
    row_N = np.flatnonzero((task_N >= 0) & (label_N >= 0))
    row_N = row_N[_first_of_each(np.stack([task_N, label_N], axis=1)[row_N], limit)]
    return Candidates(
        task_N[row_N],
        label_N[row_N],
        facts.origin[row_N],
        np.array(as_names(facts.unit[row_N]), dtype=object),
        np.array(as_names(facts.content[row_N]), dtype=object),
    )


def _first_of_each(cell_N2: NDArray[np.int64], limit: int) -> NDArray[np.intp]:
    """The first `limit` rows of every cell, in their order."""
    frame = pd.DataFrame(cell_N2)
    return np.flatnonzero(frame.groupby([0, 1]).cumcount().to_numpy() < limit)


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


def _members(facts: Facts, kept_N: Mask, placement: Placement) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The task of every row, -1 for none, and its label as a number of the list, or one of the special ones."""
    plan, nowhere = placement.plan, -1
    (task_N, tasks), (label_N, labels) = facts.coded("task"), facts.coded("label")
    numbers = {label: number for number, label in enumerate(placement.labels)} | {"": UNLABELLED}
    if placement.outside is not None:
        numbers[placement.outside] = OUT_OF_SCOPE
    number_N = _lookup(numbers, labels, nowhere)[label_N] if labels else label_N.astype(np.int64)
    unknown_N = ~np.isin(label_N, [code for code, label in enumerate(labels) if label in numbers])
    by, code_N = (labels, label_N) if plan.by_label else (tasks, task_N)
    found_N = _lookup(plan.numbers, by, nowhere)[code_N]
    for number, purpose in ((OUT_OF_SCOPE, "out of scope"), (UNLABELLED, "unlabelled")):
        shared_N = kept_N & ~unknown_N & (number_N == number)
        if shared_N.any():
            ids = facts.block.payload()["id"].filter(pa.array(shared_N)).to_pylist()
            drawn_N = (draws(placement.seed, purpose, ids) * len(plan.names)).astype(np.int64)
            named_N = _lookup({name: place for place, name in enumerate(plan.names)}, tasks, nowhere)[task_N[shared_N]]
            found_N[shared_N] = np.where(named_N >= 0, named_N, drawn_N)
    found_N[~kept_N | unknown_N] = nowhere
    return found_N, number_N


def _lookup(numbers: Mapping[str, int], names: Sequence[str], missing: int) -> NDArray[np.int64]:
    return np.array([numbers.get(name, missing) for name in names], dtype=np.int64)


def _capped(facts: Facts, kept_N: Mask, placement: Placement) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As `_members`, without the rows beyond the caps."""
    task_N, label_N = _members(facts, kept_N, placement)
    if placement.caps:
        rank_N, pool_N = _unit_ranks(facts, placement.seed), label_N == UNLABELLED
        for (task, pool), stop in placement.caps.items():
            task_N[(task_N == task) & (pool_N == pool) & (rank_N >= stop)] = -1
    return task_N, label_N


def _chosen(
    facts: Facts, state_N: NDArray[np.void], placement: Placement
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As `_capped`, without train rows that are out of scope: no network has a class for them."""
    task_N, label_N = _capped(facts, state_N["status"] == Status.KEPT, placement)
    task_N[(state_N["split"] == _TRAIN) & (label_N == OUT_OF_SCOPE)] = -1
    return task_N, label_N


def _unit_ranks(facts: Facts, seed: int) -> NDArray[np.float64]:
    return draws(seed, "cap", as_names(facts.unit))


def _row_ranks(block: Block, chosen_N: Mask, seed: int) -> NDArray[np.float64]:
    """The rank of the chosen rows for the tail, by their ids; others have 0."""
    rank_N = np.zeros(len(chosen_N))
    ids = block.payload()["id"].filter(pa.array(chosen_N)).to_pylist()
    rank_N[chosen_N] = draws(seed, "long tail", ids)
    return rank_N
