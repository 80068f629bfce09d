"""Trains one collaborator on a task sequence: a step at a time, resumable at any step, by any number of ranks.

Step s of an epoch takes rows s*B to (s+1)*B of a seeded order; a closed form takes those of the files, one epoch long.
Each rank computes its share of them. Gradients are sums over the real rows divided by their weight over all ranks,
added up over ranks, so they do not depend on the rank count. What a learner does beyond that, it does with sums over
all ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kcm.collaborator.class_base import UNSEEN
from kcm.collaborator.collaborator import Collaborator
from kcm.collaborator.distill import DistillConfig, distillation_loss
from kcm.collaborator.normalizer import FrozenNormalizer
from kcm.errors import ArtefactError, ConfigError, DataError
from kcm.inputs.labels import UNLABELLED
from kcm.learners.base import Batch, LearnedTask, Learner, Scored, joined
from kcm.learners.ranks import Ranks
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.order import ROWS_PER_GROUP, FileOrder, TrainOrder, Windows
from kcm.learners.training.stream import SequenceLabels, TaskRows, labels_of, shares


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
        _check_tasks(tasks, learner)
        learner.check(collaborator.num_labels)
        learner.require(collaborator)
        num_epochs, batch_size = learner.schedule(train.num_epochs, train.batch_size)
        train = train.model_copy(update={"num_epochs": num_epochs, "batch_size": batch_size})
        self.collaborator, self.learner, self.tasks = collaborator, learner, list(tasks)
        self.train, self.distill, self.seed = train, distill, seed
        self.ranks = ranks or Ranks()
        self.position = Position()
        self._labels = SequenceLabels(tasks, collaborator.num_labels)
        self._classes = self._labels.classes(-1, collaborator.num_labels)  # before the first task: none
        self.accuracy: dict[str, list[list[float | None]]] = {"judge": [], "small": []}
        self._fit_inputs()
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
        """Accuracy of judge and small on the test split of every task that has one, each rank counting its share."""
        measured = self.tasks[:num_learned] if self.train.mask_unseen else self.tasks
        right = torch.zeros(2, len(measured), dtype=torch.float64)
        for column, task in enumerate(measured):
            for batch in self._shares(task, "test", size=4096):
                for line, logits in enumerate(self._logits(batch.features)):
                    right[line, column] += ((logits.argmax(-1) == batch.labels) * batch.weights).sum()
        self.ranks.sum_([right])
        nothing = [None] * (len(self.tasks) - len(measured))
        num_rows = [task.num_rows("test") for task in measured]
        return {
            name: [*(found / count if count else None for found, count in zip(row, num_rows, strict=True)), *nothing]
            for name, row in zip(("judge", "small"), right.tolist(), strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed trainer needs, loadable with `weights_only=True`."""
        return {
            "collaborator": self.collaborator.state_dict(),
            "optimizer": self._optimizer.state_dict() if self._optimizer else {},
            "learner": self.learner.state_dict(),
            "accuracy": self.accuracy,
            "baseline": self.baseline,
            "position": [self.position.task, self.position.step, self.position.total],
            "tasks": [task.name for task in self.tasks],
            "num_labels": self.collaborator.num_labels,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`, or with the tasks that follow a finished trainer's.

        ArtefactError for the state of another task sequence, ConfigError where a sequence cannot grow.
        """
        grows = _has_grown(state, [task.name for task in self.tasks], mask_unseen=self.train.mask_unseen)
        more = [None] * (len(self.tasks) - len(state["tasks"]))
        self.accuracy = {name: [[*row, *more] for row in rows] for name, rows in state["accuracy"].items()}
        self.baseline = {name: [*row, *more] for name, row in state["baseline"].items()}
        self.position = Position(*state["position"])
        self.learner.load_state_dict(state["learner"])
        self.collaborator.resize(state.get("num_labels", self._labels.num_labels))
        self.collaborator.load_state_dict(state["collaborator"])
        if grows:
            self._begin_task()
            return
        self._open_task()
        if self._optimizer:
            self._optimizer.load_state_dict(state["optimizer"])

    # -- one step ------------------------------------------------------------------------------------------------------

    def _step_batch(self) -> tuple[Batch, int]:
        """This rank's share of the step's rows, and how many rows all ranks share."""
        epoch, step = divmod(self.position.step, self._steps_per_epoch)
        first = step * self.train.batch_size
        stop = min(first + self.train.batch_size, self._num_streamed)
        return self._rows.share(epoch, first, stop), stop - first

    def _descend(self, batch: Batch, num_rows: int) -> None:
        """One step of the optimiser on `batch`, this rank's share of `num_rows` rows."""
        optimizer = self._optimizer
        assert optimizer is not None  # a closed form never gets here
        for group in optimizer.param_groups:
            group["lr"] = self.train.rate_at(self.position.step / self.steps_in_task)
        optimizer.zero_grad(set_to_none=False)
        self._loss(batch, num_rows).backward()  # type: ignore[no-untyped-call]
        parameters = self._parameters
        self.ranks.sum_(p.grad for p in parameters.values() if p.grad is not None)
        with torch.no_grad():
            self.learner.before_update(parameters)
        optimizer.step()
        with torch.no_grad():
            self.learner.after_update(parameters)

    def _loss(self, batch: Batch, num_rows: int) -> Tensor:
        """The loss of this rank's share of the step, divided by the weight of all ranks' rows.

        `batch` is its share of `num_rows` rows of the stream; remembered rows join them.
        """
        total, num_stream = float(num_rows), len(batch)
        if (extra := self.learner.extra_rows(self.position.total, num_rows)) is not None:
            index, weights = self.ranks.share(torch.arange(len(extra)))
            batch = joined([batch, extra.take(index, weights * extra.weights[index])])
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
        large_NC, seen_C = batch.large_probabilities, self._classes.seen_C
        loss_N = loss_N + distillation_loss(judge_NC, small_NC, large_NC, self.distill, seen_C)
        return Scored(batch, self.collaborator, torch.stack([judge_NC, small_NC]), loss_N)

    def _logits(self, features_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Judge and small logits; if unseen labels are masked, theirs are out of the way."""
        judge_NC, small_NC = self.collaborator(features_ND)
        if not self.train.mask_unseen:
            return judge_NC, small_NC
        unseen_C = ~self._classes.seen_C
        return judge_NC.masked_fill(unseen_C, UNSEEN), small_NC.masked_fill(unseen_C, UNSEEN)

    @property
    def _active_C(self) -> Tensor:
        """Labels whose logits take part in the loss: all, or the seen ones, which alone have a base."""
        only_seen = self.train.mask_unseen or self.collaborator.base is not None
        return self._classes.seen_C if only_seen else torch.ones_like(self._classes.seen_C)

    # -- task boundaries -----------------------------------------------------------------------------------------------

    def _begin_task(self) -> None:
        """Bring the networks to where the task's first step finds them."""
        if self.train.mask_unseen:
            self._labels.append_outputs(self.collaborator, self.position.task)
            self.learner.grow(self.collaborator)
        if self.learner.restarts:
            self._restart()
        self._add_to_base()
        self._open_task()

    def _restart(self) -> None:
        """Take the networks back to where the first task found them."""
        self.collaborator.load_state_dict(self.collaborator.state_dict() | self._initial)
        if self.train.mask_unseen:
            self.collaborator.start_outputs(range(self.collaborator.num_labels))

    def _initial_tensors(self) -> dict[str, Tensor]:
        """What a restart restores: everything but the base and outputs that are at their start."""
        own = self.collaborator.output_names if self.train.mask_unseen else set()
        state = self.collaborator.state_dict()
        return {
            name: value.clone() for name, value in state.items() if not name.startswith("base.") and name not in own
        }

    def _open_task(self) -> None:
        """Get ready for the steps of the task; after the last one, for being measured."""
        task = self.position.task
        self._classes = self._labels.classes(task, self.collaborator.num_labels)
        self._parameters = dict(self.collaborator.named_parameters())
        # Torch loads its compiler, some 2 s, with the first optimiser.
        self._optimizer = None if self.learner.closed_form else self.train.build(self._parameters.values())
        if self.done:
            return
        streamed = [self.tasks[i] for i in self.learner.tasks_to_stream(task)]
        sizes = [rows.num_rows("train") for rows in streamed]
        self._num_streamed, self._steps_per_epoch = sum(sizes), self._count_steps(task)

        def read(stream: int, start: int, stop: int) -> Batch:
            return self._widened(streamed[stream].read("train", start, stop))

        def order(epoch: int) -> TrainOrder:
            return TrainOrder(sizes, seed=self.seed, task=task, epoch=epoch, window=self.train.window)

        in_order = self.learner.closed_form
        self._rows = FileOrder(sizes, read, self.ranks) if in_order else Windows(order, read, self.ranks)

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
        elif (known := self.collaborator.num_labels) < self._labels.num_labels:  # labels that nobody gave to a row
            self.collaborator.resize(self._labels.num_labels)
            self.collaborator.start_outputs(range(known, self._labels.num_labels))
            self.learner.grow(self.collaborator)
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
            seen_C=self._classes.seen_C,
            active_C=self._active_C,
            ranks=self.ranks,
            distill=self.distill,
        )

    def _shares(self, rows: TaskRows, split: str, *, size: int) -> Iterator[Batch]:
        """This rank's share of a split, `size` rows at a time, its padding with weight 0."""
        return map(self._widened, shares(rows, split, self.ranks, size=size))

    def _widened(self, batch: Batch) -> Batch:
        """The rows, their large probabilities over the labels that the networks have."""
        return batch.widened(self.collaborator.num_labels) if self.train.mask_unseen else batch

    def _remember(self, task: int) -> None:
        ids, positions = sketch(self.learner, self.tasks[task], task, self.ranks)
        mine: tuple[list[str], Batch] | tuple[()] = ()
        if ids:
            batch = self._widened(self.tasks[task].take("train", torch.tensor(positions)))
            if self.learner.stores_logits:
                with torch.no_grad():
                    logits_NMC = torch.stack(self._logits(batch.features)[: len(self.collaborator.networks)], 1)
                batch = replace(batch, logits=logits_NMC.masked_fill(~self._active_C, torch.nan))
            mine = ids, batch
        if offered := [part for part in self.ranks.gather(mine) if part]:
            every_id = [row_id for ids, _ in offered for row_id in ids]
            self.learner.remember(every_id, joined(rows for _, rows in offered), task)

    def _fit_inputs(self) -> None:
        """Fit what stays as the first task's rows made it: a normaliser with statistics, and mixtures of features."""
        if isinstance(self.collaborator.normalizer, FrozenNormalizer):
            self.collaborator.normalizer.fit(self._first_features(), add_up=self.ranks.sum_)
        self.collaborator.fit_mixtures(self._first_features(), add_up=self.ranks.sum_)

    def _first_features(self) -> Iterator[Tensor]:
        """This rank's share of the features of the first task's train rows."""
        shares = self._shares(self.tasks[0], "train", size=4096)
        return (batch.features[batch.weights > 0] for batch in shares)


def _check_tasks(tasks: Sequence[TaskRows], learner: Learner) -> None:
    """Raise DataError for a task without the rows, or the labels, that this learner needs."""
    for number, task in enumerate(tasks):
        # After the first task, a large model's answers are enough for a learner that uses them.
        needs_labels = number == 0 or learner.closed_form or not task.num_rows("train")
        if needs_labels and not labels_of(task):
            raise DataError(f"task {task.name!r} has no labelled train rows")


def _has_grown(state: Mapping[str, Any], names: Sequence[str], *, mask_unseen: bool) -> bool:
    """Whether the state belongs to a finished trainer whose sequence has grown to tasks of these names.

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
            hint="Set train.mask_unseen: true and train all tasks again",
        )
    return True


_ROWS_SKETCHED = 16 * ROWS_PER_GROUP  # of which ids and labels are held at a time


def sketch(learner: Learner, rows: TaskRows, task: int, ranks: Ranks) -> tuple[list[str], list[int]]:
    """Ids and positions of the train rows of this rank that could enter the memory.

    Rows are dealt out some blocks at a time. The sketch of some rows joins that of the rows before: it is never larger
    than the memory. Merged over ranks, it is the same for any number of them.
    """
    held: list[tuple[str, int, int]] = []  # id, label and position
    num_rows, size = rows.num_rows("train"), _ROWS_SKETCHED
    for start in range(ranks.rank * size, num_rows, ranks.world_size * size):
        stop = min(start + size, num_rows)
        found = zip(*rows.ids_and_labels("train", start, stop), range(start, stop), strict=True)
        held += [row for row in found if row[1] != UNLABELLED]
        chosen = learner.candidates([row[0] for row in held], [row[1] for row in held], task)
        held = [held[index] for index in chosen]
    return [row[0] for row in held], [row[2] for row in held]
