"""What both trainers share: networks that grow with the labels of a task sequence, the R matrix, the state of a run.

Each of the two has one loop, `fit`: `ClosedFormTrainer` adds rows to sums, `Trainer` takes optimiser steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor

from kcm.collaborator.class_base import UNSEEN
from kcm.collaborator.collaborator import Collaborator
from kcm.collaborator.distill import DistillConfig
from kcm.collaborator.normalizer import FrozenNormalizer
from kcm.errors import ArtefactError, ConfigError, DataError
from kcm.inputs.labels import UNLABELLED
from kcm.learners.base import Batch, Classes, LearnedTask, Learner
from kcm.learners.ranks import Ranks, on_device
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.stream import TaskRows, shares


@dataclass
class Position:
    """Where a trainer stands: the task, the step within it, and the steps taken in all."""

    task: int = 0
    step: int = 0
    total: int = 0


@dataclass(eq=False, repr=False)
class SequenceTrainer(ABC):
    """Trains `collaborator` on `tasks`, one after the other, with `learner`.

    After each task, row i of the matrix R holds the accuracy on the test split of every task. `baseline` is the
    accuracy at initialisation. With seen-class masking nothing can be measured before its task is learned: None.

    With masking, the networks have outputs only for the labels seen so far; outputs are appended as labels come. So
    nothing that is computed for a task depends on later tasks. A trainer that loads a finished trainer's state and gets
    one more task ends, bit for bit, like a trainer of all these tasks.
    """

    collaborator: Collaborator
    learner: Learner
    tasks: Sequence[TaskRows]
    train: TrainConfig
    distill: DistillConfig
    _: KW_ONLY
    seed: int
    ranks: Ranks = field(default_factory=Ranks)

    def __post_init__(self) -> None:
        _check_tasks(self.tasks, self.learner)
        self.device = next(self.collaborator.parameters()).device
        self.learner.check(self.collaborator.num_labels)
        self.learner.require(self.collaborator)
        self.position = Position()
        self._labels = SequenceLabels(self.tasks, self.collaborator.num_labels)
        self.accuracy: dict[str, list[list[float | None]]] = {"judge": [], "small": []}
        self._fit_inputs()
        if self.train.mask_unseen:
            self.collaborator.resize(0)
        self.baseline = self.evaluate(num_learned=0)
        self._steps = self.fit()

    @abstractmethod
    def fit(self) -> Iterator[bool]:
        """Learn the tasks that are left, from the current position; yield after every step whether it ended a task."""

    @abstractmethod
    def num_steps(self, task: int) -> int:
        """Steps that a task takes."""

    @property
    def done(self) -> bool:
        """Whether every task has been learned."""
        return self.position.task == len(self.tasks)

    @property
    def steps_in_all(self) -> int:
        """Steps of the whole sequence."""
        return sum(map(self.num_steps, range(len(self.tasks))))

    def step(self) -> bool:
        """Take the next step of `fit`; True if it ended a task. The state can be saved after any step."""
        return next(self._steps)

    def run(self) -> None:
        """Take all the steps that are left."""
        while not self.done:
            self.step()

    @torch.inference_mode()
    def evaluate(self, num_learned: int) -> dict[str, list[float | None]]:
        """Accuracy of judge and small on the test split of every task that has one; each rank counts its share."""
        measured = self.tasks[:num_learned] if self.train.mask_unseen else self.tasks
        right = torch.zeros(2, len(measured), dtype=torch.float64, device=self.device)
        for column, task in enumerate(measured):
            for batch in self._shares(task, "test", size=4096):
                for line, logits in enumerate(self._logits(batch.features)):
                    right[line, column] += ((logits.argmax(-1) == batch.labels) * batch.weights).sum()
        self.ranks.sum_([right])
        nothing = [None] * (len(self.tasks) - len(measured))
        sizes = [task.num_rows("test") for task in measured]
        return {
            name: [*(count / size if size else None for count, size in zip(row, sizes, strict=True)), *nothing]
            for name, row in zip(("judge", "small"), right.tolist(), strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed trainer needs, loadable with `weights_only=True`, on the CPU."""
        return {
            "collaborator": on_device(dict(self.collaborator.state_dict()), "cpu"),
            "learner": on_device(self.learner.state_dict(), "cpu"),
            "accuracy": self.accuracy,
            "baseline": self.baseline,
            "position": [self.position.task, self.position.step, self.position.total],
            "tasks": [task.name for task in self.tasks],
            "num_labels": self.collaborator.num_labels,
            "basis": self.collaborator.network.basis,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`, or with the tasks that follow a finished trainer's tasks.

        ArtefactError for the state of another task sequence, ConfigError for a sequence that cannot grow.
        """
        _check_state(state, [task.name for task in self.tasks], mask_unseen=self.train.mask_unseen)
        more = [None] * (len(self.tasks) - len(state["tasks"]))
        self.accuracy = {name: [[*row, *more] for row in rows] for name, rows in state["accuracy"].items()}
        self.baseline = {name: [*row, *more] for name, row in state["baseline"].items()}
        self.position = Position(*state["position"])
        self.learner.load_state_dict(on_device(state["learner"], self.device))
        self.collaborator.choose_basis(state["basis"])
        self.collaborator.resize(state["num_labels"])
        self.collaborator.load_state_dict(state["collaborator"])
        self._steps = self.fit()

    def _begin_task(self) -> None:
        """Append outputs for the labels that the task brings."""
        if self.train.mask_unseen:
            self._labels.append_outputs(self.collaborator, self.position.task)
            self.learner.grow(self.collaborator)

    def _advance(self) -> None:
        self.position.step += 1
        self.position.total += 1

    def _end_task(self) -> None:
        """Measure, and move to the next task; after the last task, labels that no row has get outputs too."""
        for network, row in self.evaluate(self.position.task + 1).items():
            self.accuracy[network].append(row)
        self.position = Position(self.position.task + 1, 0, self.position.total)
        if self.done and (known := self.collaborator.num_labels) < self._labels.num_labels:
            self.collaborator.resize(self._labels.num_labels)
            self.collaborator.start_outputs(range(known, self._labels.num_labels))
            self.learner.grow(self.collaborator)

    @property
    def _classes(self) -> Classes:
        classes = self._labels.classes(self.position.task, self.collaborator.num_labels)
        return Classes(classes.current_C.to(self.device), classes.seen_C.to(self.device))

    @property
    def _active_C(self) -> Tensor:
        """Labels whose logits take part in the loss: all, or the seen ones, which alone have a base."""
        seen_C = self._classes.seen_C
        only_seen = self.train.mask_unseen or self.collaborator.base is not None
        return seen_C if only_seen else torch.ones_like(seen_C)

    def _learned_task(self) -> LearnedTask:
        rows = self.tasks[self.position.task]
        return LearnedTask(
            collaborator=self.collaborator,
            batches=(part for batch in self._shares(rows, "train", size=512) if len(part := batch.labelled())),
            num_rows=sum(count for label, count in rows.label_counts("train").items() if label != UNLABELLED),
            seen_C=self._classes.seen_C,
            active_C=self._active_C,
            ranks=self.ranks,
            distill=self.distill,
        )

    def _logits(self, features_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Judge and small logits; with masking, unseen labels have the logit UNSEEN."""
        judge_NC, small_NC = self.collaborator(features_ND)
        if not self.train.mask_unseen:
            return judge_NC, small_NC
        unseen_C = ~self._classes.seen_C
        return judge_NC.masked_fill(unseen_C, UNSEEN), small_NC.masked_fill(unseen_C, UNSEEN)

    def _streamed(self, task: int) -> list[TaskRows]:
        """The tasks whose train rows are used to train a task."""
        return [self.tasks[number] for number in self.learner.tasks_to_stream(task)]

    def _shares(self, rows: TaskRows, split: str, *, size: int) -> Iterator[Batch]:
        """This rank's share of a split, `size` rows at a time, its padding with weight 0."""
        return map(self._widened, shares(rows, split, self.ranks, size=size))

    def _widened(self, batch: Batch) -> Batch:
        """The rows on the networks' device, with large probabilities over the labels that the networks have."""
        batch = batch.to(self.device)
        return batch.widened(self.collaborator.num_labels) if self.train.mask_unseen else batch

    def _fit_inputs(self) -> None:
        """Fit what the first task's rows fix for good: a normaliser with statistics, and mixtures of features."""
        if isinstance(self.collaborator.normalizer, FrozenNormalizer):
            self.collaborator.normalizer.fit(self._first_features(), add_up=self.ranks.sum_)
        self.collaborator.fit_mixtures(self._first_features(), add_up=self.ranks.sum_)

    def _first_features(self) -> Iterator[Tensor]:
        """This rank's share of the features of the first task's train rows."""
        batches = self._shares(self.tasks[0], "train", size=4096)
        return (batch.features[batch.weights > 0] for batch in batches)


class SequenceLabels:
    """The labels of a sequence's train rows, task by task. Shapes: C labels."""

    def __init__(self, tasks: Sequence[TaskRows], num_labels: int) -> None:
        self.num_labels = num_labels
        self._of_task = [labels_of(task) for task in tasks]
        # The first task whose train rows have a label; len(tasks) if none has.
        self._first_task_C = torch.full((num_labels,), len(tasks))
        for number, labels in reversed(list(enumerate(self._of_task))):
            self._first_task_C[labels] = number

    def classes(self, task: int, num_outputs: int) -> Classes:
        """The first `num_outputs` labels as a task sees them; after the last task, none is current."""
        last = len(self._of_task) - 1
        seen_C = (self._first_task_C <= min(task, last))[:num_outputs]
        current_C = torch.zeros_like(seen_C)
        if task <= last:
            current_C[self._of_task[task]] = True
        return Classes(current_C, seen_C)

    def append_outputs(self, collaborator: Collaborator, task: int) -> None:
        """Give the networks an output for every label up to the last seen label; new outputs are at their start.

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


def _check_tasks(tasks: Sequence[TaskRows], learner: Learner) -> None:
    """Raise DataError for a task without the rows, or the labels, that this learner needs."""
    for number, task in enumerate(tasks):
        # After the first task, a large model's answers are enough for a learner that uses them.
        needs_labels = number == 0 or learner.closed_form or not task.num_rows("train")
        if needs_labels and not labels_of(task):
            raise DataError(f"task {task.name!r} has no labelled train rows")


def _check_state(state: Mapping[str, Any], names: Sequence[str], *, mask_unseen: bool) -> None:
    """ArtefactError for the state of a sequence that does not go on with these tasks, ConfigError if it cannot grow."""
    learned = state["tasks"]
    if learned == names:
        return
    if learned != names[: len(learned)]:
        raise ArtefactError(f"the checkpoint is of the tasks {learned}, not of {names}")
    if state["position"][0] < len(learned):
        raise ArtefactError(f"the checkpoint is in the midst of the tasks {learned}; finish them before others")
    if not mask_unseen:
        raise ConfigError(
            f"train.mask_unseen = false: labels of later tasks took part when {learned} were trained",
            where="train.mask_unseen",
            hint="Set train.mask_unseen: true and train all tasks again",
        )
