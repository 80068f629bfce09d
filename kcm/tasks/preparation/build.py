"""A task sequence from its configuration; every fault of the data is found before any work starts.

Rows are read once. Their facts go to a database that finds the split and the task of every row. Their payload waits in
blocks, then goes to the shards of the tasks. Both may run on many machines. This process holds counts, the names of
labels and tasks, and the database, but no payload.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from kcm.errors import ConfigError, DataError
from kcm.inputs.content import TEXT, Part
from kcm.tasks.preparation.checks import Cell, check_labels, check_splits
from kcm.tasks.preparation.database import FactsDatabase
from kcm.tasks.preparation.earlier import EarlierTasks, KnownRowsError, plan_next_tasks
from kcm.tasks.preparation.facts import RowRules, block_file, shard_and_position, write_facts
from kcm.tasks.preparation.payload import Target, places_file, write_task_shard
from kcm.tasks.rows import BadRow, check_bad_rows, write_bad_rows
from kcm.tasks.scenarios import TaskPlan, TasksConfig, long_tail_sizes, plan_tasks
from kcm.tasks.sequence import BAD_ROWS, UNITS, Summary, write_description
from kcm.tasks.shards import SHARD_ROWS, SequenceFolder
from kcm.tasks.sources import Source
from kcm.tasks.splits import NOT_GIVEN, SPLITS, shuffled

_ROW_BYTES = 256  # rough bytes per row: the estimate only decides on which machine rows are read
_TRAIN = SPLITS.index("train")

Workers: TypeAlias = Callable[[Callable[[Any], Any], Sequence[Any], int], Iterable[Any]]
"""Runs a function over many items, in any processes; results come in the order of the items.

The number is the approximate number of rows in all items together.
"""


def in_process(function: Callable[[Any], Any], items: Sequence[Any], num_rows: int) -> Iterable[Any]:
    """One item after another, in this process."""
    return map(function, items)


def write_sequence(
    config: TasksConfig,
    folder: Path | SequenceFolder,
    source: Source,
    seed: int,
    *,
    reads: Collection[Part] = TEXT,
    bad_rows_file: Path | None = None,
    workers: Workers = in_process,
    earlier: EarlierTasks | None = None,
) -> str:
    """Read, check, split and write the rows into an empty folder; returns the digest of the sequence.

    With `earlier` tasks, the rows are the next task of their sequence, or several by the task column. The folder gets
    the shards of the new tasks, and the description and units of the whole sequence. Rows whose content is in an
    earlier task are dropped; KnownRowsError if that is all of them.

    The digest is the same on every machine and with any workers, for the same rows and seed. `reads` are the parts of a
    row that a model reads: each must be usable, and other parts are not kept.

    Bad rows are written to `bad_rows_file`, if given, before their number is compared with `max_bad_rows`. Rows dropped
    because another split has their content or group are listed too, but not counted.

    Raises DataError, AssetError or ConfigError for anything that would stop a later stage.
    """
    files = SequenceFolder(folder) if isinstance(folder, Path) else folder
    files.path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kcm-tasks-") as scratch, FactsDatabase(Path(scratch), seed) as facts:
        build = SequenceBuild(config, source, seed, frozenset(reads), files, workers, facts, earlier)
        if earlier:
            facts.add_earlier(earlier.ids, earlier.units)
        build.read_facts()
        build.draw_splits(bad_rows_file)
        build.plan_tasks()
        return build.write()


@dataclass
class SequenceBuild:
    """The steps from a source to a sequence, with their counts."""

    config: TasksConfig
    source: Source
    seed: int
    reads: frozenset[Part]
    folder: SequenceFolder
    workers: Workers
    facts: FactsDatabase
    earlier: EarlierTasks | None = None
    blocks: dict[int, int] = field(default_factory=dict)  # rows of each block, by the place of the first of them
    labels: tuple[str, ...] = ()
    plan: TaskPlan = field(default_factory=lambda: TaskPlan((), (), False, {}))
    cells: dict[Cell, int] = field(default_factory=dict)  # kept rows by task, split and label
    long_tail: tuple[str, ...] = ()

    @property
    def outside(self) -> str | None:
        """The label of out-of-scope rows, if they are kept."""
        return self.source.out_of_scope_label if self.config.out_of_scope == "keep" else None

    @property
    def rules(self) -> RowRules:
        """What makes a row usable, and the salt of the splits."""
        config, known_labels = self.config, self.source.labels
        if known_labels and self.source.out_of_scope_label:
            known_labels = (*known_labels, self.source.out_of_scope_label)
        salt = self.seed if config.salt is None else config.salt
        return RowRules(known_labels, self.reads, config.unlabelled == "keep", salt)

    @property
    def num_rows(self) -> int:
        """All rows of the source."""
        return sum(self.blocks.values())

    def read_facts(self) -> None:
        """Read the facts of all shards."""
        shards = self.source.shards
        write = partial(write_facts, rules=self.rules, folder=self.folder)
        estimated_rows = sum(shard.num_bytes for shard in shards) // _ROW_BYTES
        for sizes in self.workers(write, list(enumerate(shards)), estimated_rows):
            for place in sizes:
                self.facts.add(self.folder.read(block_file("facts", place)))
                self.folder.remove([block_file("facts", place)])
            self.blocks |= sizes
        if not self.num_rows:
            raise DataError("there are no rows", where=self.source.name)

    def draw_splits(self, bad_rows_file: Path | None) -> None:
        """Draw the splits and list dropped rows; DataError if too many rows are bad."""
        splits_given = self.earlier is not None and self.earlier.splits_given
        self.facts.judge(self.config.fractions, " and ".join(self.rules.parts), splits_given=splits_given)
        where = self.source.name
        write_bad_rows(self._left_out(), self.folder.path / BAD_ROWS)
        if bad_rows_file is not None:
            write_bad_rows(self._left_out(), bad_rows_file)
            where = f"{where}, all listed in {bad_rows_file}"
        check_bad_rows(self._left_out(), self.facts.num_bad, self.num_rows, self.config.max_bad_rows, where)

    def _left_out(self) -> Iterator[BadRow]:
        """The dropped rows, bad ones first, each with its number among the rows of its file."""
        for place, row_id, reason in self.facts.left_out():
            shard, position = shard_and_position(place)
            yield BadRow(row_id, reason, self.source.shards[shard].where, position + 1)

    def plan_tasks(self) -> None:
        """Find the task of every row, drop rows beyond the caps, and check the rest."""
        config, source = self.config, self.source
        cells = [cell for cell in self.facts.cells() if cell[1] != source.out_of_scope_label]
        if self.earlier and not cells:
            raise KnownRowsError(f"all rows of {source.name} are in the sequence already", where=source.name)
        known_labels = self.earlier.labels if self.earlier else ()
        present = {label for _, label in cells}
        labels = dict.fromkeys((*known_labels, *(source.labels or sorted(present))))
        self.labels = tuple(label for label in labels if label != source.out_of_scope_label)
        check_labels(self.labels, present | {*known_labels}, source.name)
        if config.out_of_scope == "keep" and source.out_of_scope_label is None:
            raise ConfigError(
                "out_of_scope = 'keep', but nothing says which rows have none of the labels",
                where="tasks.out_of_scope",
                hint="Set source.out_of_scope_label",
            )
        plan = partial(plan_next_tasks, name=source.name, earlier=self.earlier) if self.earlier else plan_tasks
        self.plan = plan(
            cells,
            self.labels,
            scenario=config.scenario,
            num_tasks=config.num_tasks,
            order=config.order,
            seed=self.seed,
        )
        self.facts.assign_tasks(self.plan, self.labels, self.outside)
        if config.max_rows_per_task is not None:
            self.facts.cap(config.max_rows_per_task)
        self.cells = self.facts.choose({})
        if config.long_tail is not None:
            self.cells = self.facts.choose(self._tail_sizes())
        check_splits(self.plan, self.cells, self.labels, config.scenario, config.fractions, self.facts.origins)

    def _tail_sizes(self) -> dict[tuple[int, int], int]:
        """The number of train rows to keep per task and label.

        n_max or the largest class sets the scale; if tasks share labels, each task has its own scale.
        """
        config, plan = self.config.long_tail, self.plan
        assert config is not None
        self.long_tail = tuple(shuffled(dict.fromkeys(chain(*plan.labels)), self.seed, "long tail"))
        tasks = range(len(plan.names))
        sizes: dict[tuple[int, int], int] = {}
        for pool in [list(tasks)] if self.config.scenario == "class_incremental" else [[task] for task in tasks]:
            counts = Counter[int]()
            for (task, split, label), count in self.cells.items():
                counts[label] += count if task in pool and split == _TRAIN and label >= 0 else 0
            class_sizes = long_tail_sizes(
                config.n_max or max(counts.values(), default=0), len(self.long_tail), config.imbalance_factor
            )
            numbers = map(self.labels.index, self.long_tail)
            sizes |= {(task, label): size for label, size in zip(numbers, class_sizes, strict=True) for task in pool}
        return sizes

    def write(self) -> str:
        """Write the shards of all tasks, then the description; returns the digest of the sequence."""
        self.facts.place()
        targets = list(self._place_rows())
        write = partial(write_task_shard, folder=self.folder, parts=self.rules.parts)
        digests = list(self.workers(write, targets, self.num_rows))
        self.folder.remove(block_file("rows", block) for block in self.blocks)
        self.folder.remove(map(places_file, targets))
        self.facts.write_units(self.folder.path / UNITS)
        description = self._description()
        write_description(self.folder.path, self.earlier.described(description) if self.earlier else description)
        plan = self.plan
        identity = [self.source.name, self.config.scenario, self.labels, self.outside, plan.names, plan.labels]
        identity += [self.earlier.identity] if self.earlier else []
        shards = [(*target, digest) for target, digest in zip(targets, digests, strict=True)]
        return sha256(json.dumps([identity, shards]).encode()).hexdigest()

    def _place_rows(self) -> Iterator[Target]:
        """Write the places of the rows of every shard of every task."""
        num_rows = Counter[int]()
        for (task, _, _), count in self.cells.items():
            num_rows[task] += count
        first = len(self.earlier.tasks) if self.earlier else 0
        for task in range(len(self.plan.names)):
            for shard, start in enumerate(range(0, num_rows[task], SHARD_ROWS)):
                target = first + task, shard
                self.folder.write(places_file(target), [self.facts.places(task, start, start + SHARD_ROWS)], "zstd")
                yield target

    def _description(self) -> dict[str, object]:
        """The description of the sequence, without rows."""
        return {
            "name": self.source.name,
            "scenario": self.config.scenario,
            "label_names": self.labels,
            "order": self.config.order,
            "seed": self.seed,
            "long_tail": self.long_tail,
            "none_label": self.outside,
            "splits_given": self.facts.origins != {NOT_GIVEN},
            "tasks": [
                {"name": name, "label_names": label_names}
                for name, label_names in zip(self.plan.names, self.plan.labels, strict=True)
            ],
            "summary": vars(self._summary()),
        }

    def _summary(self) -> Summary:
        """The counts that a run prints."""
        labels = dict.fromkeys(self.labels, 0)
        rows = {name: dict.fromkeys(map(str, SPLITS), 0) for name in self.plan.names}
        for (task, split, label), count in self.cells.items():
            rows[self.plan.names[task]][SPLITS[split]] += count
            if label >= 0:
                labels[self.labels[label]] += count
        units = self.facts.certify_units()
        return Summary(
            labels,
            rows,
            {name: units.get(task, 0) for task, name in enumerate(self.plan.names)},
            self.facts.num_bad,
            self.facts.num_overlapping,
            self.facts.num_repeating,
        )
