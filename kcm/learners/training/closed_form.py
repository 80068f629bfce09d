"""Trains a collaborator in closed form: every train row enters the learner's sums once, in the order of the files."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch

from kcm.collaborator.collaborator import BASES, Basis
from kcm.learners.base import Batch, Learner
from kcm.learners.training.sequence import SequenceTrainer
from kcm.learners.training.stream import TaskRows
from kcm.metrics.intervals import Units

_MOST_SCORED = 2048  # rows that choose a basis


class ClosedFormTrainer(SequenceTrainer):
    """The trainer of learners that are `closed_form`; a step adds one chunk of rows, and a task ends with a solve.

    A chunk is a function of its number, and the sums are sums over all ranks. So neither the number of ranks nor an
    interruption changes more than their rounding.
    """

    def fit(self) -> Iterator[bool]:
        """Add the chunks of each task that are left to the sums, then solve and measure."""
        while not self.done:
            task = self.position.task
            if self.position.step == 0:
                self._begin_task()
            chunks = self._chunks(task)
            for chunk in chunks[self.position.step :]:
                if self.collaborator.network.basis == "auto" and self.collaborator.kind == "kan":
                    self._choose_basis(*chunk)
                else:
                    self.learner.absorb(self.collaborator, self._share(*chunk), self.distill, self.ranks)
                self._advance()
                if self.position.step < len(chunks):
                    yield False
            self.learner.end_task(self._learned_task())
            self._end_task()
            yield True

    @torch.no_grad()
    def _choose_basis(self, rows: TaskRows, start: int, stop: int) -> None:
        """Add the first chunk of the first task under each basis, and go on with the one of fewer left-out mistakes."""
        batch = self._share(rows, start, stop)
        scored = self._share(rows, start, min(stop, start + _MOST_SCORED)).labelled()
        real = scored.weights.nonzero()[:, 0]
        scored = scored.take(real, scored.weights[real])
        tried: dict[Basis, tuple[int, Learner]] = {}
        for basis in BASES:
            collaborator, learner = copy.deepcopy((self.collaborator, self.learner))
            collaborator.choose_basis(basis)
            learner.absorb(collaborator, batch, self.distill, self.ranks)
            judge_NC, _ = learner.left_out(collaborator, scored, Units(None, len(scored)), self.distill)
            num_wrong = int((judge_NC.argmax(1) != scored.labels).sum())
            tried[basis] = sum(self.ranks.gather(num_wrong)), learner
        basis = min(BASES, key=lambda name: tried[name][0])
        self.collaborator.choose_basis(basis)
        self.learner = tried[basis][1]

    def num_steps(self, task: int) -> int:
        """Chunks of a task."""
        return len(self._chunks(task))

    def _chunks(self, task: int) -> list[tuple[TaskRows, int, int]]:
        """Rows, start and stop of every chunk of a task."""
        size = self.learner.chunk_size
        sized = [(rows, rows.num_rows("train")) for rows in self._streamed(task)]
        return [
            (rows, start, min(start + size, num_rows)) for rows, num_rows in sized for start in range(0, num_rows, size)
        ]

    def _share(self, rows: TaskRows, start: int, stop: int) -> Batch:
        """This rank's share of a chunk, padding with weight 0."""
        index, weights = self.ranks.share(torch.arange(start, stop))
        first = int(index[0])
        return self._widened(rows.read("train", first, int(index[-1]) + 1)).take(index - first, weights)
