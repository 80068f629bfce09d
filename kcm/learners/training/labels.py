"""Which labels a task sequence has seen by when, and the outputs that come with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kcm.collaborator.collaborator import Collaborator
from kcm.inputs.labels import UNLABELLED
from kcm.learners.base import Classes
from kcm.learners.training.stream import TaskRows


class SequenceLabels:
    """The labels of a sequence's train rows, task by task. Shapes: C labels."""

    def __init__(self, tasks: Sequence[TaskRows], num_labels: int) -> None:
        self.num_labels = num_labels
        self._of_task = [labels_of(task) for task in tasks]
        # The first task whose train rows have a label; len(tasks) where none has.
        self._first_task_C = torch.full((num_labels,), len(tasks))
        for number, labels in reversed(list(enumerate(self._of_task))):
            self._first_task_C[labels] = number

    def classes(self, task: int, num_outputs: int) -> Classes:
        """The first `num_outputs` labels as a task sees them; before the first and after the last, none is current."""
        last = len(self._of_task) - 1
        seen_C = (self._first_task_C <= min(task, last))[:num_outputs]
        current_C = torch.zeros_like(seen_C)
        if 0 <= task <= last:
            current_C[self._of_task[task]] = True
        return Classes(current_C, seen_C)

    def append_outputs(self, collaborator: Collaborator, task: int) -> None:
        """Give the networks an output for every label up to the last one seen; those of new labels are at their start.

        A label that waited between others may have an output already, which weight decay has moved.
        """
        known = collaborator.num_labels
        seen = (self._first_task_C <= task).nonzero()[:, 0]
        count = int(seen.max()) + 1 if len(seen) else 0
        collaborator.resize(count)
        new = (self._first_task_C[:count] == task) | (torch.arange(count) >= known)
        collaborator.start_outputs(new.nonzero()[:, 0].tolist())


def labels_of(task: TaskRows) -> list[int]:
    """The labels that the train rows of a task have."""
    return sorted(label for label in task.label_counts("train") if label != UNLABELLED)
