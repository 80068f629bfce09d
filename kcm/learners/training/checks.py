"""What a trainer refuses: tasks that nothing can be learned from, and states that it cannot go on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kcm.errors import ArtefactError, ConfigError, DataError
from kcm.learners.base import Learner
from kcm.learners.training.labels import labels_of
from kcm.learners.training.stream import TaskRows


def check_tasks(tasks: Sequence[TaskRows], learner: Learner) -> None:
    """Raise DataError for a task without the rows, or the labels, that this learner needs."""
    for number, task in enumerate(tasks):
        # After the first task, a large model's answers are enough for a learner that uses them.
        needs_labels = number == 0 or learner.closed_form or not task.num_rows("train")
        if needs_labels and not labels_of(task):
            raise DataError(f"task {task.name!r} has no labelled train rows")


def has_grown(state: Mapping[str, Any], names: Sequence[str], *, mask_unseen: bool) -> bool:
    """Whether a trainer's state is of a finished one whose sequence has grown to tasks of these names.

    ArtefactError for the state of another sequence, ConfigError where a sequence cannot grow.
    """
    theirs = state["tasks"]
    if theirs == names:
        return False
    if theirs != names[: len(theirs)]:
        raise ArtefactError(f"the checkpoint is of the tasks {theirs}, not of {names}")
    if state["position"][0] < len(theirs):
        raise ArtefactError(f"the checkpoint is in the midst of the tasks {theirs}; finish them before others")
    if not mask_unseen:
        raise ConfigError(
            f"train.mask_unseen = false: labels of later tasks took part when {theirs} were trained",
            where="train.mask_unseen",
            hint="Set train.mask_unseen: true and train all tasks anew",
        )
    return True
