"""Trains a collaborator by optimiser steps: batches, steps, the end of the task, the state.

Step s of an epoch takes rows s*B to (s+1)*B of a seeded order, and each rank computes its share of them. Gradients are
sums over the real rows divided by their weight over all ranks, added up over ranks. So they do not depend on the number
of ranks, and a run that resumes at any step ends like an undisturbed one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from kcm.collaborator.collaborator import Collaborator
from kcm.collaborator.distill import DistillConfig, distillation_loss
from kcm.inputs.labels import UNLABELLED
from kcm.learners.base import Batch, Learner, Scored, joined
from kcm.learners.ranks import Ranks, on_device
from kcm.learners.training.closed_form import ClosedFormTrainer
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.sequence import SequenceTrainer
from kcm.learners.training.stream import TaskRows
from kcm.tasks.shards import GROUP_ROWS

_ROWS_SKETCHED = 16 * GROUP_ROWS  # of which ids and labels are held at a time


def trainer_of(
    collaborator: Collaborator,
    learner: Learner,
    tasks: Sequence[TaskRows],
    train: TrainConfig,
    distill: DistillConfig,
    *,
    seed: int,
    ranks: Ranks | None = None,
) -> SequenceTrainer:
    """The trainer that a learner needs: one pass for a closed form, otherwise optimiser steps."""
    kind = ClosedFormTrainer if learner.closed_form else Trainer
    return kind(collaborator, learner, tasks, train, distill, seed=seed, ranks=ranks or Ranks())


class Trainer(SequenceTrainer):
    """The trainer of learners that take optimiser steps; the hooks of `Learner` say what they add to a step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._initial = self._initial_tensors() if self.learner.restarts else {}
        self._optimizer: Optimizer | None = None  # of the task that is being trained

    def fit(self) -> Iterator[bool]:
        """Take the steps of each task that are left, then let the learner end the task, remember rows, and measure."""
        while not self.done:
            task = self.position.task
            if self.position.step == 0:
                self._begin_task()
            num_steps = self.num_steps(task)
            for batch, num_rows in self._batches(task):
                self._descend(batch, num_rows, rate=self.train.rate_at(self.position.step / num_steps))
                self._advance()
                if self.position.step < num_steps:
                    yield False
            self._optimizer = None
            self.learner.end_task(self._learned_task())
            if self.learner.remembers():
                self._remember(task)
            self._end_task()
            yield True

    def num_steps(self, task: int) -> int:
        """Steps of a task over all its epochs."""
        return self.train.num_epochs * self._steps_per_epoch(task)

    def _steps_per_epoch(self, task: int) -> int:
        return math.ceil(sum(rows.num_rows("train") for rows in self._streamed(task)) / self.train.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """As every trainer's, with the optimiser's state within a task."""
        optimizer = self._optimizer.state_dict() if self._optimizer else {}
        return super().state_dict() | {"optimizer": on_device(optimizer, "cpu")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As every trainer, with the optimiser's state within a task."""
        super().load_state_dict(state)
        self._optimizer = None
        if state["optimizer"]:
            self._optimizer = self.train.build(self.collaborator.parameters())
            self._optimizer.load_state_dict(state["optimizer"])

    # -- the batches of a task -----------------------------------------------------------------------------------------

    def _batches(self, task: int) -> Iterator[tuple[Batch, int]]:
        """This rank's share of every step that is left, and how many rows all ranks share."""
        streams, size = self._streamed(task), self.train.batch_size

        def read(stream: int, start: int, stop: int) -> Batch:
            return self._widened(streams[stream].read("train", start, stop))

        sizes = [rows.num_rows("train") for rows in streams]
        first_epoch, step = divmod(self.position.step, self._steps_per_epoch(task))
        for epoch in range(first_epoch, self.train.num_epochs):
            skipped = step * size if epoch == first_epoch else 0
            windows = shuffled_windows(read, sizes, self.train.window, key=(self.seed, task, epoch), skipped=skipped)
            for batch in batches_of(windows, size):
                yield batch.take(*self.ranks.share(torch.arange(len(batch)))), len(batch)

    # -- one step ------------------------------------------------------------------------------------------------------

    def _descend(self, batch: Batch, num_rows: int, rate: float) -> None:
        """One step of the optimiser on `batch`, this rank's share of `num_rows` rows."""
        optimizer, parameters = self._optimizer, dict(self.collaborator.named_parameters())
        assert optimizer is not None  # since the task began
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=False)
        self._loss(batch, num_rows).backward()  # type: ignore[no-untyped-call]
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
            index, weights = self.ranks.share(torch.arange(len(extra), device=self.device))
            batch = joined([batch, extra.take(index, weights * extra.weights[index])])
            total += float(extra.weights.sum())
        loss_N = self.learner.row_loss(self.scored(batch, num_stream))
        return (loss_N * batch.weights).sum() / total

    def scored(self, batch: Batch, num_stream: int) -> Scored:
        """The networks' outputs for a batch, and the collaboration loss of its labels and teachers.

        The first `num_stream` rows are of the stream, the others remembered. The loss of a row without a label comes
        from its teachers alone.
        """
        judge_NC, small_NC = self._logits(batch.features)
        targets = (batch.labels, num_stream, self._classes)
        loss_N = self.learner.label_loss(judge_NC, *targets)
        if self.collaborator.network.shared:
            return Scored(batch, self.collaborator, judge_NC.unsqueeze(0), loss_N)
        loss_N = loss_N + self.learner.label_loss(small_NC, *targets)
        large_NC, seen_C = batch.large_probabilities, self._classes.seen_C
        loss_N = loss_N + distillation_loss(judge_NC, small_NC, large_NC, self.distill, seen_C)
        return Scored(batch, self.collaborator, torch.stack([judge_NC, small_NC]), loss_N)

    # -- task boundaries -----------------------------------------------------------------------------------------------

    def _begin_task(self) -> None:
        """Bring the networks to where the task's first step finds them, with a fresh optimiser."""
        super()._begin_task()
        if self.learner.restarts:
            self._restart()
        self._add_to_base()
        self._optimizer = self.train.build(self.collaborator.parameters())

    def _restart(self) -> None:
        """Reset the networks to their state before the first task."""
        self.collaborator.load_state_dict(self.collaborator.state_dict() | self._initial)
        if self.train.mask_unseen:
            self.collaborator.start_outputs(range(self.collaborator.num_labels))

    def _initial_tensors(self) -> dict[str, Tensor]:
        """The tensors that a restart restores: all but the base, and outputs that are at their start."""
        outputs = self.collaborator.output_names if self.train.mask_unseen else set()
        state = self.collaborator.state_dict()
        return {
            name: value.clone() for name, value in state.items() if not name.startswith("base.") and name not in outputs
        }

    def _add_to_base(self) -> None:
        """Add the task's own rows to the base, each once, whatever is streamed of the task later."""
        if (base := self.collaborator.base) is None:
            return
        labelled = (batch.labelled() for batch in self._shares(self.tasks[self.position.task], "train", size=4096))
        real = ((batch, batch.weights.nonzero()[:, 0]) for batch in labelled)
        part = base.sums_of((batch.features[rows], batch.labels[rows]) for batch, rows in real)
        self.ranks.sum_(part)
        base.add(part)

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
        if offered := [part for part in self.ranks.gather(mine, self.device) if part]:
            every_id = [row_id for ids, _ in offered for row_id in ids]
            self.learner.remember(every_id, joined(rows for _, rows in offered), task)


def batches_of(windows: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The rows of windows, `size` at a time; a batch may span windows, the last batch has the rows that are left."""
    rest: list[Batch] = []
    for window in windows:
        rows = joined([*rest, window])
        num_full = len(rows) // size * size
        for start in range(0, num_full, size):
            yield _between(rows, start, start + size)
        rest = [_between(rows, num_full, len(rows))] if num_full < len(rows) else []
    yield from rest


def _between(rows: Batch, start: int, stop: int) -> Batch:
    return rows.take(torch.arange(start, stop), torch.ones(stop - start))


def shuffled_windows(
    read: Callable[[int, int, int], Batch], sizes: Sequence[int], window: int, *, key: Sequence[int], skipped: int = 0
) -> Iterator[Batch]:
    """The rows of an epoch over `sizes[k]` rows of stream k, one shuffled window at a time.

    Blocks of GROUP_ROWS rows come in an order that is seeded by `key`, and the rows of `window` blocks are shuffled
    together. `read` returns the rows `start` to `stop` of a stream. The first `skipped` rows are left out, and a window
    without other rows is not read.
    """
    blocks = [(stream, start) for stream, size in enumerate(sizes) for start in range(0, size, GROUP_ROWS)]
    rng = np.random.default_rng(key)
    rng.shuffle(blocks)
    for number, first in enumerate(range(0, len(blocks), window)):
        ranges = [(stream, at, min(at + GROUP_ROWS, sizes[stream])) for stream, at in blocks[first : first + window]]
        num_rows = sum(stop - start for _, start, stop in ranges)
        if skipped < num_rows:
            # The first window is drawn after the order of the blocks, by the same generator.
            order_N = (np.random.default_rng([*key, number]) if number else rng).permutation(num_rows)[skipped:]
            rows = joined(read(*place) for place in ranges)
            yield rows.take(torch.from_numpy(order_N), torch.ones(len(order_N)))
        skipped = max(0, skipped - num_rows)


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
