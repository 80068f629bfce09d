"""A task sequence from its configuration; every fault of the data is found before any work starts.

Rows go from file to file, block by block (`splitting`, `placing`, `writing`), and the passes may run on many machines.
What is here holds counts and the names of labels and tasks, and nothing that grows with the rows.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from hashlib import sha256
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from kcm.errors import ConfigError, DataError
from kcm.inputs.content import TEXT, Part
from kcm.tasks.config import TasksConfig
from kcm.tasks.plan.sampling import Ranked, head_to_tail, join_ranks, long_tail_sizes, threshold
from kcm.tasks.plan.scenarios import load_mapping, plan_tasks
from kcm.tasks.plan.splits import SPLITS
from kcm.tasks.preparation.blocks import Block, clean_shard
from kcm.tasks.preparation.checks import check_labels, check_sizes, shortage, split_error
from kcm.tasks.preparation.cleaning import Rules
from kcm.tasks.preparation.exchange import Matters, RecordFile, bridging, bucket_ranges, merge_buckets, repeated
from kcm.tasks.preparation.placing import Candidates, Placement, candidates, place, rank_rows, rank_units
from kcm.tasks.preparation.splitting import assign, left_out, settle
from kcm.tasks.preparation.writing import PlacedRows, write_shard
from kcm.tasks.rows import BadRow, check_bad_rows, write_bad_rows
from kcm.tasks.sequence import BAD_ROWS, TaskSequence, write_description
from kcm.tasks.sources import Shard, Source

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
KeyT = TypeVar("KeyT")

_CANDIDATES = 256  # rows of every task and label by which a salt is judged


class Workers(Protocol):
    """Runs a pass over many items, in any processes; results come in the order of the items.

    `num_rows` is about the number of rows that all of them together hold.
    """

    def __call__(
        self, function: Callable[[ItemT], ResultT], items: Sequence[ItemT], num_rows: int
    ) -> Iterable[ResultT]:
        """The function of every item."""
        ...


def in_process(function: Callable[[ItemT], ResultT], items: Sequence[ItemT], num_rows: int) -> Iterable[ResultT]:
    """One item after another, here."""
    return map(function, items)


def build_sequence(
    config: TasksConfig,
    assets_dir: Path,
    seed: int,
    *,
    reads: Collection[Part] = TEXT,
    bad_rows_file: Path | None = None,
    source: Source | None = None,
) -> TaskSequence:
    """What `write_sequence` writes, in memory. `source` replaces the configured one, for rows that are at hand."""
    opened = source or config.source.build(assets_dir)
    with tempfile.TemporaryDirectory() as folder:
        write_sequence(config, Path(folder), opened, seed, reads=reads, bad_rows_file=bad_rows_file)
        return TaskSequence.load(Path(folder))


def write_sequence(
    config: TasksConfig,
    folder: Path,
    source: Source,
    seed: int,
    *,
    reads: Collection[Part] = TEXT,
    bad_rows_file: Path | None = None,
    workers: Workers = in_process,
) -> str:
    """Read, check, split and write the rows into an empty folder, which all workers see; the digest of the sequence.

    It is the same on every machine and with any workers, for the same rows and seed. `reads` are the parts of a row
    that some model reads: each must be usable, and the others are not kept.

    Bad rows are listed in `bad_rows_file`, if given, before their number is held against `max_bad_rows`. Rows left out
    because their content or group also lies in another split are listed too, but not counted.

    Raises DataError, AssetError or ConfigError for whatever would stop a later stage.
    """
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    build = SequenceBuild(config, source, seed, folder, scratch, workers)
    build.clean(frozenset(reads))
    build.split(bad_rows_file)
    digest = build.write(build.placed())
    shutil.rmtree(scratch)
    return digest


class SequenceBuild:
    """The passes over one source, and what they count."""

    def __init__(
        self, config: TasksConfig, source: Source, seed: int, folder: Path, scratch: Path, workers: Workers
    ) -> None:
        self.config, self.source, self.seed = config, source, seed
        self.order_seed = seed if config.order_seed is None else config.order_seed
        self.folder, self.scratch, self.workers = folder, scratch, workers
        self.blocks: list[Block] = []
        self.num_rows = 0
        self.origins: frozenset[int] = frozenset()
        self.cells: list[tuple[str, str]] = []  # pairs of task value and label, in the order of their first rows
        self.num_bad = self.num_overlapping = self.num_repeating = 0

    def each_block(self, function: Callable[[Block], ResultT]) -> Iterable[ResultT]:
        """A pass over all blocks."""
        return self.workers(function, self.blocks, self.num_rows)

    def clean(self, reads: frozenset[Part]) -> None:
        """Read the shards into blocks. The first is read here: it tells how many rows there may be."""
        source, config = self.source, self.config
        outside = (source.out_of_scope_label,) if source.labels and source.out_of_scope_label else ()
        salt = self.seed if config.salt is None else config.salt
        rules = Rules((*source.labels, *outside), reads, config.unlabelled == "keep", salt)
        read = partial(clean_shard, rules=rules, folder=self.scratch)
        shards = list(enumerate(source.shards))
        for first in shards[:1]:
            self.blocks = read(first)
        expected = sum(block.num_rows for block in self.blocks) * len(shards)
        for _ in self.workers(_check, source.shards[1:], expected):
            pass
        for blocks in self.workers(read, shards[1:], expected):
            self.blocks += blocks
        self.num_rows = sum(block.num_rows for block in self.blocks)
        if not self.num_rows:
            raise DataError("there are no rows", where=source.name)
        self.origins = frozenset().union(*(block.origins for block in self.blocks))

    def split(self, bad_rows_file: Path | None) -> None:
        """Draw the splits, and leave out duplicates and what would lie in two splits."""
        duplicates = self._shared("ids", [block.ids for block in self.blocks], np.minimum, repeated)
        draw = partial(assign, duplicates=duplicates, origins=self.origins, fractions=self.config.fractions)
        assigned = list(self.each_block(draw))
        contents = self._shared("contents", [each.contents for each in assigned], np.bitwise_or, repeated)
        groups = self._shared("groups", [each.groups for each in assigned], np.bitwise_or, bridging)
        found: dict[tuple[str, str], None] = {}
        for settled in self.each_block(partial(settle, contents=contents, groups=groups)):
            self.num_overlapping += settled.num_overlapping
            self.num_repeating += settled.num_repeating
            found |= dict.fromkeys(settled.cells)
        self.cells = [cell for cell in found if cell[1] != self.source.out_of_scope_label]
        self.num_bad = sum(block.num_bad for block in self.blocks) + sum(each.num_duplicates for each in assigned)
        self._refuse_bad_rows(bad_rows_file)

    def _shared(self, kind: str, files: Sequence[RecordFile], how: np.ufunc, matters: Matters) -> tuple[Path, ...]:
        """The digests of a kind that matter, by bucket."""
        merge = partial(merge_buckets, files=files, target=self.scratch / f"shared-{kind}", how=how, matters=matters)
        return tuple(path for path in self.workers(merge, bucket_ranges(self.num_rows), self.num_rows) if path)

    def _refuse_bad_rows(self, file: Path | None) -> None:
        """List the rows left out, and raise DataError where too many are bad."""
        listed = self.folder / BAD_ROWS
        write_bad_rows(self._left_out(), listed)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(listed, file)
        where = f"{self.source.name}, all listed in {file}" if file is not None else self.source.name
        check_bad_rows(self._left_out(), self.num_bad, self.num_rows, self.config.max_bad_rows, where)

    def _left_out(self) -> Iterator[BadRow]:
        """The rows left out, bad ones first, each with its number among the rows of its file."""
        shards, before = self.source.shards, Counter[str]()
        starts: dict[int, int] = {}  # rows of a file before a shard: a large file is several
        for block in self.blocks:
            starts.setdefault(block.shard, before[shards[block.shard].where])
            before[shards[block.shard].where] += block.num_rows
        for is_bad in (True, False):
            for block in self.blocks:
                for row in left_out(block).to_pylist():
                    if row["is_bad"] == is_bad:
                        number = starts[block.shard] + row["position"] + 1
                        yield BadRow(row["id"] or "", row["reason"], shards[block.shard].where, number)

    def placed(self) -> PlacedRows:
        """Plan the tasks, leave out what is too much, and check what is left."""
        config, source = self.config, self.source
        labels = tuple(source.labels or sorted({label for _, label in self.cells}))
        labels = tuple(label for label in labels if label != source.out_of_scope_label)
        check_labels(labels, {label for _, label in self.cells}, source.name)
        plan = plan_tasks(
            self.cells,
            labels,
            scenario=config.scenario,
            num_tasks=config.num_tasks,
            mapping=load_mapping(config.mapping) if config.mapping else None,
            order=config.order,
            seed=self.order_seed,
        )
        if config.out_of_scope == "keep" and source.out_of_scope_label is None:
            raise ConfigError(
                "out_of_scope = 'keep', but nothing says which rows have none of the labels",
                where="tasks.out_of_scope",
                hint="Set source.out_of_scope_label",
            )
        outside = source.out_of_scope_label if config.out_of_scope == "keep" else None
        placement = Placement(plan, labels, outside, self.seed)
        if config.max_rows_per_task is not None:
            placement = replace(placement, caps=self._caps(placement, config.max_rows_per_task))
        rows = self._place(placement)
        check_sizes(plan, rows.labelled())
        if config.long_tail is not None:
            ranked, tails = self._tails(rows)
            rows = replace(self._place(replace(placement, tails=tails)), long_tail=ranked)
        self._check_splits(rows)
        return rows

    def _place(self, placement: Placement) -> PlacedRows:
        return PlacedRows(placement, list(self.each_block(partial(place, placement=placement))))

    def _caps(self, placement: Placement, limit: int) -> dict[tuple[int, bool], float]:
        """The rank from which on units are left out, of each task with more rows than `limit`."""
        found = self.each_block(partial(rank_units, placement=placement, limit=limit))
        ranked = _joined(
            found, dict.fromkeys(((t, p) for t in range(len(placement.plan.names)) for p in (False, True)), limit)
        )
        for (task, _), units in ranked.items():
            if units["rows"][0] > limit:
                raise DataError(
                    f"max_rows_per_task = {limit} is less than the rows of one group of task"
                    f" {placement.plan.names[task]!r}",
                    where="tasks.max_rows_per_task",
                    hint="Raise it",
                )
        return _thresholds(ranked, dict.fromkeys(ranked, limit))

    def _tails(self, rows: PlacedRows) -> tuple[tuple[str, ...], dict[tuple[int, int], float]]:
        """The labels from head to tail, and the rank from which on train rows are left out, of each task and label.

        n_max or the largest class sets the scale, in each task by itself where they share labels.
        """
        config, plan, labels = self.config.long_tail, rows.placement.plan, rows.placement.labels
        assert config is not None
        stream = tuple(dict.fromkeys(label for own in plan.labels for label in own))
        ranked = head_to_tail(stream, config, self.order_seed)
        tasks = range(len(plan.names))
        sizes: dict[tuple[int, int], int] = {}
        for pool in [list(tasks)] if self.config.scenario == "class_incremental" else [[task] for task in tasks]:
            counts: Counter[int] = Counter()
            for (task, split, label), count in rows.cells.items():
                if task in pool and SPLITS[split] == "train":
                    counts[label] += count
            largest = config.n_max or max(counts.values(), default=0)
            kept = long_tail_sizes(largest, len(ranked), config.imbalance_factor)
            sizes |= {
                (task, labels.index(label)): size for task in pool for label, size in zip(ranked, kept, strict=True)
            }
        found = self.each_block(partial(rank_rows, placement=rows.placement, sizes=sizes))
        return ranked, _thresholds(_joined(found, sizes), sizes)

    def _check_splits(self, rows: PlacedRows) -> None:
        """Raise SplitError for a split that lacks what it needs."""
        placement = rows.placement
        lacks = partial(
            shortage, placement.plan, labels=placement.labels, scenario=self.config.scenario
        )  # of cells that have rows
        if found := lacks(rows.cells):
            some = self.each_block(partial(candidates, placement=placement, limit=_CANDIDATES))
            joined = reduce(partial(Candidates.join, limit=_CANDIDATES), some)
            raise split_error(found, joined, lacks, self.origins, self.config.fractions)

    def write(self, rows: PlacedRows) -> str:
        """Write the shards of all tasks and, last, the description; the digest of the sequence."""
        plan, config = rows.placement.plan, self.config
        shards = [shard for task in range(len(plan.names)) for shard in rows.shards(self.blocks, task)]
        digest = sha256()
        none_label = self.source.out_of_scope_label if config.out_of_scope == "keep" else None
        identity = [self.source.name, config.scenario, rows.placement.labels, none_label, plan.names, plan.labels]
        digest.update(json.dumps(identity).encode())
        for shard, of_rows in zip(
            shards, self.workers(partial(write_shard, folder=self.folder), shards, self.num_rows), strict=True
        ):
            digest.update(f"{shard.task} {of_rows}\n".encode())
        write_description(
            self.folder,
            {
                "name": self.source.name,
                "scenario": config.scenario,
                "label_names": rows.placement.labels,
                "order": config.order,
                "seed": self.seed,
                "long_tail": rows.long_tail,
                "none_label": none_label,
                "tasks": [
                    {"name": name, "label_names": own} for name, own in zip(plan.names, plan.labels, strict=True)
                ],
                "summary": vars(rows.summary(self.num_bad, self.num_overlapping, self.num_repeating)),
            },
        )
        return digest.hexdigest()


def _check(shard: Shard) -> None:
    shard.check()


def _joined(found: Iterable[Mapping[KeyT, Ranked]], limits: Mapping[KeyT, int]) -> dict[KeyT, Ranked]:
    """The first ranks over all blocks."""
    joined: dict[KeyT, Ranked] = {}
    for ranks in found:
        for key, some in ranks.items():
            joined[key] = join_ranks(joined[key], some, limits[key]) if key in joined else some
    return joined


def _thresholds(ranked: Mapping[KeyT, Ranked], limits: Mapping[KeyT, int]) -> dict[KeyT, float]:
    """Where each of them is cut; those that fit are not."""
    cuts = {key: threshold(ranks, limits[key]) for key, ranks in ranked.items()}
    return {key: cut for key, cut in cuts.items() if cut < np.inf}
