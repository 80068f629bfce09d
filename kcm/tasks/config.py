"""The section `tasks` of a configuration."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from kcm.config import Config
from kcm.tasks.readers.reviews import ReviewsSource
from kcm.tasks.scenarios import LongTailConfig, Scenario, TaskOrder
from kcm.tasks.sources import SourceConfig
from kcm.tasks.splits import DEFAULT_FRACTIONS, Fractions


class TasksConfig(Config):
    """The source of the rows, and their division into tasks."""

    source: SourceConfig = Field(default=ReviewsSource(), description="Where the rows come from.")
    scenario: Scenario = Field(default="domain_incremental", description="What changes from task to task.")
    num_tasks: int | None = Field(default=None, ge=1, description="Number of tasks; labels are divided equally.")
    order: TaskOrder = Field(
        default="given", description="Order of tasks and classes: as in the source, or drawn by the seed."
    )
    order_seed: int | None = Field(
        default=None, description="Seed of the orders of tasks, classes and long tail; null: the seed of the run."
    )
    max_rows_per_task: int | None = Field(
        default=None,
        ge=1,
        description="Cap per task, whole groups, all splits together; unlabelled rows have their own cap of this size.",
    )
    salt: int | None = Field(
        default=None, ge=0, description="Seed that draws the split of each unit; null: the seed of the run."
    )
    fractions: Fractions = Field(
        default=DEFAULT_FRACTIONS,
        description="Shares of train, validate, certify and test; test may be 0. Without fractions, a learner with "
        "left-out scores of its train rows uses 0.65, 0, 0.25 and 0.1.",
    )
    max_bad_rows: int | str = Field(default="1%", description="Bad rows allowed: a count, or a share such as 1%.")
    long_tail: LongTailConfig | None = Field(default=None, description="Cut the train rows to a long tail.")
    out_of_scope: Literal["drop", "keep"] = Field(
        default="drop", description="Whether rows with none of the labels are dropped or kept."
    )
    unlabelled: Literal["refuse", "keep"] = Field(
        default="refuse",
        description="refuse: rows without a label are bad rows. keep: train rows with the large model's answers.",
    )

    @field_validator("max_bad_rows", mode="before")
    @classmethod
    def _count_or_share(cls, value: object) -> int | str:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?%", value) and float(value[:-1]) <= 100:
            return value
        raise ValueError("must be a count such as 20, or a share such as 1%")
