"""Trains one collaborator on a task sequence: a step at a time, resumable at any step, by any number of ranks.

Step s of an epoch takes rows s*B to (s+1)*B of a seeded order. Each rank computes its share of them, and reads no other
rows of a large task; gradients are sums over the real rows divided by their weight over all ranks, added up over ranks,
so they do not depend on the rank count. What a learner does beyond that, it does with sums over all ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from kcm.collaborator.class_base import UNSEEN
from kcm.collaborator.collaborator import Collaborator
from kcm.collaborator.distill import DistillConfig, distillation_loss
from kcm.collaborator.normalizer import FrozenNormalizer
from kcm.config import Config
from kcm.errors import ArtefactError, ConfigError, DataError
from kcm.inputs.labels import UNLABELLED
from kcm.learners.base import Batch, Classes, LearnedTask, Learner, Scored
from kcm.learners.memory import MemoryRow
from kcm.learners.ranks import Ranks
from kcm.learners.training.optimizers import SGD, AdamW, Optimizer
from kcm.learners.training.order import ROWS_PER_GROUP, TrainOrder
from kcm.learners.training.stream import TaskRows
from kcm.learners.training.windows import Windows
from kcm.tasks.hashing import row_key

_ROWS_SKETCHED = 16 * ROWS_PER_GROUP  # of which ids and labels are held at a time


class TrainConfig(Config):
    """How every task is trained."""

    added: ClassVar[frozenset[str]] = frozenset({"optimizer", "sgd_rate"})

    num_epochs: int = Field(20, ge=1, description="Passes over the train rows of a task.")
    batch_size: int = Field(64, ge=1, description="Rows of a step, over all workers together.")
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw", description="Takes the steps; sgd has momentum 0.9, anew in each task, and no decay."
    )
    learning_rate: float = Field(3e-3, gt=0, description="Peak rate of AdamW; a cosine takes it to zero in each task.")
    sgd_rate: float = Field(0.1, gt=0, description="Peak rate of SGD; a cosine takes it to zero in each task.")
    weight_decay: float = Field(1e-2, ge=0, description="Decoupled weight decay of AdamW.")
    mask_unseen: bool = Field(
        False, description="Labels of later tasks take no part in the loss, nor in the accuracy after each task."
    )
    window: int = Field(16, ge=1, description="Row groups of 1,024 rows among which rows are shuffled.")

    @property
    def peak_rate(self) -> float:
        """The peak rate of the optimiser that is chosen."""
        return self.sgd_rate if self.optimizer == "sgd" else self.learning_rate

    def with_rate(self, rate: float) -> TrainConfig:
        """The same with another peak rate for the optimiser that is chosen."""
        return self.model_copy(update={"sgd_rate" if self.optimizer == "sgd" else "learning_rate": rate})

    def rate_at(self, progress: float) -> float:
        """Learning rate at `progress` in [0, 1] through a task: a cosine from the peak to zero."""
        return self.peak_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """A fresh optimiser."""
        if self.optimizer == "sgd":
            return SGD(parameters, self.sgd_rate, momentum=0.9)
        return AdamW(parameters, self.learning_rate, self.weight_decay)


@dataclass
class Position:
    """Where a trainer stands: the task, the step within it, and the steps taken in all."""

    task: int = 0
    step: int = 0
    total: int = 0


class Trainer:
    """Trains `collaborator` on `tasks`, one after the other, as `learner` says.

    After each task, row i of the matrix R holds the accuracy on the test split of every task; `baseline` is the same
    at initialisation. Where unseen labels are masked there is nothing to measure before a task is learned: None.

    Where they are masked, the networks have no outputs for labels beyond those seen so far: outputs are appended as
    labels come. So nothing that is computed for a task depends on later ones, and a trainer that is given a finished
    one's state and one more task ends, bit for bit, where a trainer of all these tasks does.
    """

    def __init__(
        self,
        collaborator: Collaborator,
        learner: Learner,
        tasks: Sequence[TaskRows],
        train: TrainConfig,
        distill: DistillConfig,
        *,
        seed: int,
        ranks: Ranks | None = None,
    ) -> None:
        for number, task in enumerate(tasks):
            # After the first task, a large model's answers are enough for a learner that uses them.
            needs_labels = number == 0 or learner.closed_form or not task.num_rows("train")
            if task.num_rows("test") == 0 or (needs_labels and not _labels(task)):
                raise DataError(f"task {task.name!r} has no labelled train rows, or no test rows")
        learner.check(collaborator.num_labels)
        learner.require(collaborator)
        num_epochs, batch_size = learner.schedule(train.num_epochs, train.batch_size)
        train = train.model_copy(update={"num_epochs": num_epochs, "batch_size": batch_size})
        self.collaborator, self.learner, self.tasks = collaborator, learner, list(tasks)
        self.train, self.distill, self.seed = train, distill, seed
        self.ranks = ranks or Ranks()
        self.position = Position()
        # The first task whose train rows have a label; len(tasks) where none has.
        self._num_labels = collaborator.num_labels
        self._first_task_C = torch.full((collaborator.num_labels,), len(self.tasks))
        for number, task in reversed(list(enumerate(self.tasks))):
            self._first_task_C[_labels(task)] = number
        self._seen_C = torch.zeros(collaborator.num_labels, dtype=torch.bool)
        self.accuracy: dict[str, list[list[float | None]]] = {"judge": [], "small": []}
        self._fit_normalizer()
        if train.mask_unseen:
            collaborator.resize(0)
        self._initial = self._initial_tensors()
        self.baseline = self.evaluate(num_learned=0)
        self._begin_task()

    @property
    def done(self) -> bool:
        """Whether every task has been learned."""
        return self.position.task == len(self.tasks)

    @property
    def steps_in_task(self) -> int:
        """Steps that the current task takes, over all its epochs."""
        return self.train.num_epochs * self._steps_per_epoch

    @property
    def steps_in_all(self) -> int:
        """Steps of the whole trainer."""
        return sum(self.train.num_epochs * self._count_steps(task) for task in range(len(self.tasks)))

    def step(self) -> bool:
        """Take one step; True when it finished a task."""
        batch, num_rows = self._step_batch()
        if self.learner.closed_form:
            self.learner.absorb(self.collaborator, batch, self.distill, self.ranks)
        else:
            self._descend(batch, num_rows)
        self.position.step += 1
        self.position.total += 1
        if self.position.step < self.steps_in_task:
            return False
        self._finish_task()
        return True

    def run(self) -> None:
        """Take all the steps that are left."""
        while not self.done:
            self.step()

    @torch.inference_mode()
    def evaluate(self, num_learned: int) -> dict[str, list[float | None]]:
        """Accuracy of judge and small on the test split of every task, each rank counting its share."""
        measured = self.tasks[:num_learned] if self.train.mask_unseen else self.tasks
        right = torch.zeros(2, len(measured), dtype=torch.float64)
        for column, task in enumerate(measured):
            for batch in self._shares(task, "test", size=4096):
                for line, logits in enumerate(self._logits(batch.features)):
                    right[line, column] += ((logits.argmax(-1) == batch.labels) * batch.weights).sum()
        self.ranks.sum_([right])
        accuracy = right / torch.tensor([task.num_rows("test") for task in measured])
        nothing = [None] * (len(self.tasks) - len(measured))
        return {name: [*row, *nothing] for name, row in zip(("judge", "small"), accuracy.tolist(), strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed trainer needs, loadable with `weights_only=True`."""
        return {
            "collaborator": self.collaborator.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "learner": self.learner.state_dict(),
            "accuracy": self.accuracy,
            "baseline": self.baseline,
            "position": [self.position.task, self.position.step, self.position.total],
            "tasks": [task.name for task in self.tasks],
            "num_labels": self.collaborator.num_labels,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, or with the tasks after those of a finished trainer.

        ArtefactError for the state of another task sequence, ConfigError where a sequence cannot grow.
        """
        grows = self._check_tasks(state)
        more = [None] * (len(self.tasks) - len(state["tasks"]))
        self.accuracy = {name: [[*row, *more] for row in rows] for name, rows in state["accuracy"].items()}
        self.baseline = {name: [*row, *more] for name, row in state["baseline"].items()}
        self.position = Position(*state["position"])
        self.learner.load_state_dict(state["learner"])
        self.collaborator.resize(state.get("num_labels", self._num_labels))
        self.collaborator.load_state_dict(state["collaborator"])
        if grows:
            self._begin_task()
            return
        self._open_task()
        self._optimizer.load_state_dict(state["optimizer"])

    def _check_tasks(self, state: dict[str, Any]) -> bool:
        """Whether the state is of a finished trainer whose sequence has grown since."""
        names, theirs = [task.name for task in self.tasks], state["tasks"]
        if theirs == names:
            return False
        if theirs != names[: len(theirs)]:
            raise ArtefactError(f"the checkpoint is of the tasks {theirs}, not of {names}")
        if state["position"][0] < len(theirs):
            raise ArtefactError(f"the checkpoint is in the midst of the tasks {theirs}; finish them before others")
        if not self.train.mask_unseen:
            raise ConfigError(
                f"train.mask_unseen = false: labels of later tasks took part when {theirs} were trained",
                where="train.mask_unseen",
                mend="Set train.mask_unseen: true and train all tasks anew",
            )
        return True

    # -- one step ------------------------------------------------------------------------------------------------------

    def step_loss(self) -> Tensor:
        """The loss of this rank's share of the next step: a scalar; the sum over ranks is the loss of the step."""
        return self._loss(*self._step_batch())

    def _step_batch(self) -> tuple[Batch, int]:
        """This rank's share of the step's rows, and how many rows all ranks share."""
        epoch, step = divmod(self.position.step, self._steps_per_epoch)
        first = step * self.train.batch_size
        stop = min(first + self.train.batch_size, self._num_streamed)
        return self._windows.share(epoch, first, stop), stop - first

    def _descend(self, batch: Batch, num_rows: int) -> None:
        """One step of the optimiser on `batch`, this rank's share of `num_rows` rows."""
        self._optimizer.rate = self.train.rate_at(self.position.step / self.steps_in_task)
        self._optimizer.zero_grad()
        self._loss(batch, num_rows).backward()  # type: ignore[no-untyped-call]
        parameters = self._parameters
        self.ranks.sum_(p.grad for p in parameters.values() if p.grad is not None)
        with torch.no_grad():
            self.learner.before_update(parameters)
        self._optimizer.step()
        with torch.no_grad():
            self.learner.after_update(parameters)

    def _loss(self, batch: Batch, num_rows: int) -> Tensor:
        """The loss of this rank's share of the step, divided by the weight of all ranks' rows."""
        total, num_stream = float(num_rows), len(batch)
        if (extra := self.learner.extra_rows(self.position.total, num_rows)) is not None:
            index, weights = self.ranks.share(torch.arange(len(extra)))
            batch = batch.join(extra.take(index, weights * extra.weights[index]))
            total += float(extra.weights.sum())
        loss_N = self.learner.row_loss(self.scored(batch, num_stream))
        return (loss_N * batch.weights).sum() / total

    def scored(self, batch: Batch, num_stream: int) -> Scored:
        """What the networks say of a batch, and what its labels and teachers cost: the collaboration loss of KCM.

        The first `num_stream` rows are of the stream, the others remembered. A row without a label costs nothing but
        what its teachers say.
        """
        judge_NC, small_NC = self._logits(batch.features)
        given = (batch.labels, num_stream, self._classes)
        loss_N = self.learner.label_loss(judge_NC, *given)
        if self.collaborator.network.shared:
            return Scored(batch, self.collaborator, judge_NC.unsqueeze(0), loss_N)
        loss_N = loss_N + self.learner.label_loss(small_NC, *given)
        loss_N = loss_N + distillation_loss(judge_NC, small_NC, batch.large_probabilities, self.distill, self._seen_C)
        return Scored(batch, self.collaborator, torch.stack([judge_NC, small_NC]), loss_N)

    def _logits(self, features_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Judge and small logits, those of unseen labels out of the way where they are masked."""
        judge_NC, small_NC = self.collaborator(features_ND)
        if not self.train.mask_unseen:
            return judge_NC, small_NC
        return judge_NC.masked_fill(~self._seen_C, UNSEEN), small_NC.masked_fill(~self._seen_C, UNSEEN)

    @property
    def _active_C(self) -> Tensor:
        """Labels whose logits take part in the loss: all, or the seen ones, which alone have a base."""
        only_seen = self.train.mask_unseen or self.collaborator.base is not None
        return self._seen_C if only_seen else torch.ones_like(self._seen_C)

    # -- task boundaries -----------------------------------------------------------------------------------------------

    def _begin_task(self) -> None:
        """Bring the networks to where the task's first step finds them."""
        if self.train.mask_unseen:
            self._append_outputs()
        if self.learner.restarts:
            self._restart()
        self._add_to_base()
        self._open_task()

    def _append_outputs(self) -> None:
        """Give the networks an output for every label up to the last one seen; those of new labels are at their start.

        A label that waited between others may have an output already, which weight decay has moved.
        """
        task, known = self.position.task, self.collaborator.num_labels
        seen = (self._first_task_C <= task).nonzero()[:, 0]
        count = int(seen.max()) + 1 if len(seen) else 0
        self.collaborator.resize(count)
        new = (self._first_task_C[:count] == task) | (torch.arange(count) >= known)
        self.collaborator.start_outputs(new.nonzero()[:, 0].tolist())
        self.learner.grow(self.collaborator)

    def _restart(self) -> None:
        """Take the networks back to where the first task found them."""
        self.collaborator.load_state_dict(self.collaborator.state_dict() | self._initial)
        if self.train.mask_unseen:
            self.collaborator.start_outputs(range(self.collaborator.num_labels))

    def _initial_tensors(self) -> dict[str, Tensor]:
        """What a restart restores: all but the base, and outputs that start by themselves."""
        own = self.collaborator.output_names if self.train.mask_unseen else set()
        state = self.collaborator.state_dict()
        return {
            name: value.clone() for name, value in state.items() if not name.startswith("base.") and name not in own
        }

    def _open_task(self) -> None:
        """Get ready for the steps of the task; after the last one, for being measured."""
        task = self.position.task
        self._seen_C = (self._first_task_C <= min(task, len(self.tasks) - 1))[: self.collaborator.num_labels]
        self._parameters = dict(self.collaborator.named_parameters())
        self._optimizer = self.train.build(self._parameters.values())
        if self.done:
            return
        streamed = [self.tasks[i] for i in self.learner.tasks_to_stream(task)]
        sizes = [rows.num_rows("train") for rows in streamed]
        self._num_streamed, self._steps_per_epoch = sum(sizes), self._count_steps(task)
        self._windows = Windows(
            lambda epoch: TrainOrder(sizes, seed=self.seed, task=task, epoch=epoch, window=self.train.window),
            lambda stream, start, stop: self._read(streamed[stream], "train", start, stop),
            self.train.num_epochs,
            self.ranks,
        )
        current_C = torch.zeros_like(self._seen_C)
        current_C[_labels(self.tasks[task])] = True
        self._classes = Classes(current_C, self._seen_C)

    def _count_steps(self, task: int) -> int:
        rows = sum(self.tasks[i].num_rows("train") for i in self.learner.tasks_to_stream(task))
        return math.ceil(rows / self.train.batch_size)

    def _finish_task(self) -> None:
        self.learner.end_task(self._learned_task())
        if self.learner.remembers():
            self._remember(self.position.task)
        for network, row in self.evaluate(self.position.task + 1).items():
            self.accuracy[network].append(row)
        self.position.task, self.position.step = self.position.task + 1, 0
        if not self.done:
            self._begin_task()
        elif (known := self.collaborator.num_labels) < self._num_labels:  # labels that nobody gave to a row
            self.collaborator.resize(self._num_labels)
            self.collaborator.start_outputs(range(known, self._num_labels))
            self._open_task()

    def _add_to_base(self) -> None:
        """Take the rows of the task that begins into the base, each once, whatever is streamed of it later."""
        if (base := self.collaborator.base) is None:
            return
        labelled = (batch.labelled() for batch in self._shares(self.tasks[self.position.task], "train", size=4096))
        real = ((batch, batch.weights.nonzero()[:, 0]) for batch in labelled)
        part = base.sums_of((batch.features[rows], batch.labels[rows]) for batch, rows in real)
        self.ranks.sum_(part)
        base.add(part)

    def _learned_task(self) -> LearnedTask:
        rows = self.tasks[self.position.task]
        return LearnedTask(
            collaborator=self.collaborator,
            batches=(part for batch in self._shares(rows, "train", size=512) if len(part := batch.labelled())),
            num_rows=sum(count for label, count in rows.label_counts("train").items() if label != UNLABELLED),
            seen_C=self._seen_C,
            active_C=self._active_C,
            ranks=self.ranks,
        )

    def _shares(self, rows: TaskRows, split: str, *, size: int) -> Iterator[Batch]:
        """This rank's share of a split, `size` rows at a time, its padding with weight 0."""
        for start, stop, weights in self.ranks.slices(rows.num_rows(split), size):
            batch = self._read(rows, split, start, stop)
            if len(batch) < len(weights):
                batch = batch.take(torch.arange(len(weights)).clamp_max(len(batch) - 1), weights)
            yield batch.reweighted(weights)

    def _read(self, task: TaskRows, split: str, start: int, stop: int) -> Batch:
        """Rows of a task, their large probabilities over the labels that the networks have."""
        return self._widened(task.read(split, start, stop))

    def _widened(self, batch: Batch) -> Batch:
        return batch.widened(self.collaborator.num_labels) if self.train.mask_unseen else batch

    def _remember(self, task: int) -> None:
        """Sketch this rank's slice of the rows, and merge the sketches: each row is read by one rank at most.

        The sketch of some rows joins that of the rows before: it is never larger than the memory.
        """
        rows = self.tasks[task]
        held: list[tuple[str, int, int]] = []  # id, label and position
        for start in range(0, rows.num_rows("train"), _ROWS_SKETCHED):
            stop = min(start + _ROWS_SKETCHED, rows.num_rows("train"))
            ids, labels = rows.ids_and_labels("train", start, stop)
            held += [
                (ids[position - start], labels[position - start], position)
                for position in range(start, stop)
                if position % self.ranks.world_size == self.ranks.rank and labels[position - start] != UNLABELLED
            ]
            chosen = self.learner.candidates([row[0] for row in held], [row[1] for row in held], task)
            held = [held[index] for index in chosen]
        sketch = self._memory_rows(task, [row[0] for row in held], torch.tensor([row[2] for row in held]))
        self.learner.remember(row for part in self.ranks.gather(sketch) for row in part)

    def _memory_rows(self, task: int, ids: Sequence[str], positions: Tensor) -> list[MemoryRow]:
        if not len(positions):
            return []
        batch = self._widened(self.tasks[task].take("train", positions))
        logits = self._logits_to_remember(batch.features) if self.learner.stores_logits else [None] * len(batch)
        return [
            MemoryRow(row_key(self.seed, row_id), row_id, task, int(label), features, large, logit)
            for row_id, label, features, large, logit in zip(
                ids,
                batch.labels,
                batch.features.numpy(),
                batch.large_probabilities.numpy(),
                logits,
                strict=True,
            )
        ]

    @torch.no_grad()
    def _logits_to_remember(self, features_ND: Tensor) -> list[np.ndarray | None]:
        """What each network says of every row, [M, C]; NaN for labels that take no part."""
        logits_NMC = torch.stack(self._logits(features_ND)[: len(self.collaborator.networks)], 1)
        return list(logits_NMC.masked_fill(~self._active_C, torch.nan).numpy())

    def _fit_normalizer(self) -> None:
        if not isinstance(self.collaborator.normalizer, FrozenNormalizer):
            return
        first = self.tasks[0]
        ends = range(0, first.num_rows("train"), 4096)
        parts = (first.read("train", start, min(start + 4096, first.num_rows("train"))) for start in ends)
        self.collaborator.normalizer.fit(part.features for part in parts)


def _labels(task: TaskRows) -> list[int]:
    """The labels that the train rows of a task have."""
    return sorted(label for label in task.label_counts("train") if label != UNLABELLED)
