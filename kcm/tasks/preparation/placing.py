"""The passes that find the task of every row: the first of each for caps and tails, and where those kept lie. N rows.

    rank      for caps and tails: the units, or rows, that come first
    place     task, split and label of every row; counts

They are functions of one block and a few small values, as those of `splitting` are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from kcm.inputs.labels import OUT_OF_SCOPE, UNLABELLED
from kcm.tasks.hashing import draws
from kcm.tasks.plan.sampling import Ranked, first_ranks
from kcm.tasks.plan.scenarios import TaskPlan
from kcm.tasks.plan.splits import SPLITS
from kcm.tasks.preparation.blocks import Block, Facts
from kcm.tasks.preparation.digests import as_names
from kcm.tasks.preparation.overlap import Status
from kcm.tasks.preparation.splitting import Mask, states

NUM_LOTS = 2  # of a task's split: rows with a label of the list, then the others
_TRAIN, _CERTIFY = SPLITS.index("train"), SPLITS.index("certify")
PLACE = np.dtype([("row", "<i4"), ("label", "<i4")])


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
    places = np.empty(len(row_N), PLACE)
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
