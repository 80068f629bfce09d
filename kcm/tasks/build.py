"""A task sequence from its configuration; every fault of the data is found before any work starts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from kcm.config import Config
from kcm.errors import ConfigError
from kcm.inputs.content import TEXT, Part
from kcm.inputs.labels import OUT_OF_SCOPE, UNLABELLED
from kcm.tasks.checks import check_labels, check_size, check_splits
from kcm.tasks.reviews import ReviewsSource
from kcm.tasks.rows import BadRow, Row, check_bad_rows, clean, write_bad_rows
from kcm.tasks.sampling import LongTailConfig, cap_rows, cut_tail, head_to_tail, long_tail_sizes
from kcm.tasks.scenarios import RowGroup, Scenario, TaskOrder, group_rows, load_mapping, shared_out
from kcm.tasks.sequence import Task, TaskSequence, dataset_of
from kcm.tasks.sources import Source, SourceConfig
from kcm.tasks.splits import DEFAULT_FRACTIONS, SPLITS, Fractions, assign_splits, without_overlap
from kcm.tasks.unlabelled import Splits, with_unlabelled


class TasksConfig(Config):
    """The source of the rows, and how they become tasks."""

    source: SourceConfig = Field(default=ReviewsSource(), description="Where the rows come from.")
    scenario: Scenario = Field(default="domain_incremental", description="What changes from task to task.")
    num_tasks: int | None = Field(default=None, ge=1, description="Number of tasks; labels are shared out equally.")
    mapping: str | None = Field(
        default=None, description="JSON or YAML file: task -> labels (or values of the task column)."
    )
    order: TaskOrder = Field(
        default="given", description="Tasks and classes as the source gives them, or drawn by the seed."
    )
    order_seed: int | None = Field(
        default=None, description="Seed of the orders of tasks, classes and long tail; null: the seed of the run."
    )
    max_rows_per_task: int | None = Field(
        default=None,
        ge=1,
        description="Cap per task, whole groups, all splits together; and one of as many for its unlabelled rows.",
    )
    fractions: Fractions = Field(default=DEFAULT_FRACTIONS, description="Shares of train, validate, certify and test.")
    max_bad_rows: int | str = Field(default="1%", description="Bad rows allowed: a count, or a share such as 1%.")
    long_tail: LongTailConfig | None = Field(default=None, description="Cut the train rows to a long tail.")
    out_of_scope: Literal["drop", "keep"] = Field(
        default="drop", description="What becomes of rows with none of the labels."
    )
    unlabelled: Literal["refuse", "keep"] = Field(
        default="refuse",
        description="Rows without a label are bad rows; or train rows that the large model and the judge alone teach.",
    )

    @field_validator("max_bad_rows", mode="before")
    @classmethod
    def _count_or_share(cls, value: object) -> int | str:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?%", value) and float(value[:-1]) <= 100:
            return value
        raise ValueError("must be a count such as 20, or a share such as 1%")


def build_sequence(
    config: TasksConfig,
    assets_dir: Path,
    seed: int,
    *,
    reads: Collection[Part] = TEXT,
    bad_rows_file: Path | None = None,
    source: Source | None = None,
) -> TaskSequence:
    """Read, check, group, cap and split the rows; the same sequence on every machine for the same rows and seed.

    `reads` are the parts of a row that some model reads: each must be usable, and the others are not kept. `source`
    replaces the configured one, for rows that are already at hand.

    Bad rows are listed in `bad_rows_file`, if given, before their number is held against `max_bad_rows`. Rows left
    out because their content or group also lies in a purer given split are listed too, but not counted.

    Raises DataError, AssetError or ConfigError for whatever would stop a later stage.
    """
    source = source or config.source.build(assets_dir)
    order_seed = seed if config.order_seed is None else config.order_seed
    usable, bad_rows = _usable_rows(source, config, reads, bad_rows_file)
    rows, pool = [row for row in usable if row.label], [row for row in usable if not row.label]
    inside = [row for row in rows if row.label != source.out_of_scope_label]
    labels = _label_list(source, inside)
    check_labels(labels, inside, source.name)
    groups = group_rows(
        inside,
        labels,
        scenario=config.scenario,
        num_tasks=config.num_tasks,
        mapping=load_mapping(config.mapping) if config.mapping else None,
        order=config.order,
        seed=order_seed,
    )
    if config.out_of_scope == "keep":
        if source.out_of_scope_label is None:
            raise ConfigError(
                "out_of_scope = 'keep', but nothing says which rows have none of the labels",
                where="tasks.out_of_scope",
                mend="Set source.out_of_scope_label",
            )
        outside = [replace(row, label="") for row in rows if row.label == source.out_of_scope_label]
        shares = shared_out(outside, groups, seed, "out of scope")
        groups = [replace(group, rows=(*group.rows, *more)) for group, more in zip(groups, shares, strict=True)]
    if config.max_rows_per_task is not None:
        limit = config.max_rows_per_task
        groups = [replace(group, rows=tuple(cap_rows(group.rows, limit, seed, task=group.name))) for group in groups]
    for group in groups:
        check_size(group)
    splits, long_tail = _cut_long_tail(groups, _split(groups, config, seed), config, seed, order_seed)
    for group, rows_of in zip(groups, splits, strict=True):
        check_splits(group, rows_of, config.scenario)
    if pool:
        splits, left_out = with_unlabelled(groups, splits, pool, config.max_rows_per_task, seed)
        bad_rows += left_out
    return TaskSequence(
        name=source.name,
        scenario=config.scenario,
        label_names=labels,
        tasks=tuple(_task(group, rows_of, labels) for group, rows_of in zip(groups, splits, strict=True)),
        order=config.order,
        seed=seed,
        bad_rows=tuple(bad_rows),
        long_tail=long_tail,
        none_label=source.out_of_scope_label if config.out_of_scope == "keep" else None,
    )


def _usable_rows(
    source: Source, config: TasksConfig, reads: Collection[Part], bad_rows_file: Path | None
) -> tuple[list[Row], list[BadRow]]:
    none_of_these = (source.out_of_scope_label,) if source.labels and source.out_of_scope_label else ()
    known = [*source.labels, *none_of_these]
    rows, faulty = clean(source.records, known, reads, unlabelled=config.unlabelled == "keep")
    num_rows = len(rows) + len(faulty)
    rows, overlapping = without_overlap(rows)
    if bad_rows_file is not None:
        write_bad_rows([*faulty, *overlapping], bad_rows_file)
    where = f"{source.name}, all listed in {bad_rows_file}" if bad_rows_file is not None else source.name
    check_bad_rows(faulty, num_rows, config.max_bad_rows, where)
    return rows, [*faulty, *overlapping]


def _label_list(source: Source, rows: Sequence[Row]) -> tuple[str, ...]:
    listed = source.labels or sorted({row.label for row in rows})
    return tuple(label for label in listed if label != source.out_of_scope_label)


def _split(groups: Sequence[RowGroup], config: TasksConfig, seed: int) -> list[Splits]:
    """Rows by split, for each task; no network has a class for an out-of-scope row, so train has none of them."""
    rows = [row for group in groups for row in group.rows]
    tasks = [group.name for group in groups for _ in group.rows]
    assigned = iter(assign_splits(rows, tasks, config.fractions, seed))
    splits = []
    for group in groups:
        members: Splits = {split: [] for split in SPLITS}
        for row in group.rows:
            split = next(assigned)
            if row.label or split != "train":
                members[split].append(row)
        splits.append(members)
    return splits


def _cut_long_tail(
    groups: Sequence[RowGroup], splits: list[Splits], config: TasksConfig, seed: int, order_seed: int
) -> tuple[list[Splits], tuple[str, ...]]:
    """Cut the train rows; n_max or the largest class sets the scale, in each task by itself where they share labels."""
    if config.long_tail is None:
        return splits, ()
    stream = tuple(dict.fromkeys(label for group in groups for label in group.labels))
    ranked = head_to_tail(stream, config.long_tail, order_seed)
    pools = [[position] for position in range(len(groups))]
    if config.scenario == "class_incremental":
        pools = [list(range(len(groups)))]
    cut = [dict(rows_of) for rows_of in splits]
    for pool in pools:
        counts = Counter(row.label for position in pool for row in splits[position]["train"])
        factor = config.long_tail.imbalance_factor
        largest = config.long_tail.n_max or max(counts.values())
        sizes = dict(zip(ranked, long_tail_sizes(largest, len(ranked), factor), strict=True))
        for position in pool:
            cut[position]["train"] = cut_tail(splits[position]["train"], sizes, seed)
    return cut, ranked


def _task(group: RowGroup, splits: Splits, labels: Sequence[str]) -> Task:
    no_label = {split: UNLABELLED if split == "train" else OUT_OF_SCOPE for split in SPLITS}
    index = {label: number for number, label in enumerate(labels)}
    return Task(
        group.name,
        group.labels,
        {
            split: dataset_of(
                {
                    "id": [row.id for row in rows],
                    "text": [row.text for row in rows],
                    "image": [row.image for row in rows],
                    "label": [index.get(row.label, no_label[split]) for row in rows],
                    "group": [row.group for row in rows],
                    "vector": [row.vector for row in rows],
                }
            )
            for split, rows in splits.items()
        },
    )
