"""What a continual-learning method decides: which tasks to stream, what to remember, and how to protect old tasks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.components import FAMILIES, Component, Family
from kcm.inputs.labels import UNLABELLED
from kcm.learners.ranks import Ranks
from kcm.metrics.intervals import Units

Parameters = Mapping[str, nn.Parameter]
"""Parameters of the networks by name; one that judge and small share is there once."""


@dataclass(frozen=True)
class Batch:
    """Rows of one step: features [N, D], labels [N], large probabilities [N, C] (NaN where there are none).

    A label is UNLABELLED where nobody gave one: then the teachers alone say what the row costs.

    `weights` [N] are what each row counts for: 1 for a row of the stream, 0 for the padding that makes every rank's
    slice equally long. `logits` [N, M, C] are what the networks said of a remembered row, NaN where that is not asked.
    """

    features: Tensor
    labels: Tensor
    large_probabilities: Tensor
    weights: Tensor
    logits: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor, weights: Tensor) -> Batch:
        """The rows at `index`, with these weights."""
        logits = None if self.logits is None else self.logits[index]
        return Batch(self.features[index], self.labels[index], self.large_probabilities[index], weights, logits)

    def labelled(self) -> Batch:
        """The rows that have a label."""
        has_label_N = self.labels != UNLABELLED
        if has_label_N.all():
            return self
        index = has_label_N.nonzero()[:, 0]
        return self.take(index, self.weights[index])

    def widened(self, num_labels: int) -> Batch:
        """The same rows, their large probabilities and logits over the first `num_labels` labels.

        Of labels that the large model was not asked about it says 0; a row without an answer stays without. Of labels
        that came later the networks have said nothing.
        """
        missing = num_labels - self.large_probabilities.shape[1]
        large_NC = F.pad(self.large_probabilities, (0, missing))
        answered_N1 = self.large_probabilities.isfinite().all(-1, keepdim=True)
        logits = None if self.logits is None else F.pad(self.logits, (0, missing), value=torch.nan)
        return replace(self, large_probabilities=large_NC.where(answered_N1, torch.nan), logits=logits)

    def reweighted(self, weights: Tensor) -> Batch:
        """The same rows with other weights."""
        return replace(self, weights=weights)


def joined(parts: Iterable[Batch]) -> Batch:
    """The rows of one batch or more, one after the other; where one has logits, those of rows without are NaN."""
    given = list(parts)
    if len(given) == 1:
        return given[0]
    names = ("features", "labels", "large_probabilities", "weights")
    columns = {name: torch.cat([getattr(part, name) for part in given]) for name in names}
    known = next((part.logits for part in given if part.logits is not None), None)
    if known is None:
        return Batch(**columns)
    blank = known.new_full((1, *known.shape[1:]), torch.nan)
    logits = [blank.expand(len(part), -1, -1) if part.logits is None else part.logits for part in given]
    return Batch(**columns, logits=torch.cat(logits))


@dataclass(frozen=True)
class Classes:
    """Labels as the current task sees them, bool [C]: its own, and those of all tasks so far, its own among them."""

    current_C: Tensor
    seen_C: Tensor

    @property
    def old_C(self) -> Tensor:
        """Labels of earlier tasks alone."""
        return self.seen_C & ~self.current_C


@dataclass(frozen=True)
class Scored:
    """This rank's rows of a step, what the networks say of them, and what their labels (and teachers) cost."""

    batch: Batch
    collaborator: Collaborator
    logits_MNC: Tensor
    label_loss_N: Tensor


@dataclass(frozen=True)
class LearnedTask:
    """A task that has just been learned: the finished networks, and this rank's share of its labelled train rows.

    `batches` can be read once; a row's weight is 0 where it is padding. `num_rows` counts the rows of all ranks.
    `seen_C` (bool) marks the labels of the tasks so far; `active_C` those whose logits take part in the loss: all, or
    under seen-class masking the seen ones.
    """

    collaborator: Collaborator
    batches: Iterable[Batch]
    num_rows: int
    seen_C: Tensor
    active_C: Tensor
    ranks: Ranks
    distill: DistillConfig


class Learner:
    """Base of the continual-learning methods; on its own it is plain finetuning, one task after the other.

    A step: `extra_rows` join the rows of the stream, `label_loss` says what the labels cost under each network and
    `row_loss` what every row costs, the gradients of the weighted mean are summed over ranks, `before_update`, the
    optimiser moves, `after_update`. After the last step of a task: `end_task`, then `remember`.
    """

    closed_form: ClassVar[bool] = False  # `absorb` takes a step's rows in, the optimiser does not move
    restarts: ClassVar[bool] = False  # networks start anew at every task
    stores_logits: ClassVar[bool] = False  # remembered rows carry the logits of the finished networks

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a method that its own capabilities ask for more of, when its module is imported."""
        super().__init_subclass__(**options)
        if cls.closed_form and cls.absorb is Learner.absorb:
            raise TypeError(f"{cls.__name__} is closed_form, and lacks `absorb`, which takes rows in")

    def check(self, num_labels: int) -> None:
        """Raise ConfigError where the method cannot work with so many labels."""

    def require(self, collaborator: Collaborator) -> None:
        """Raise ConfigError for networks that the method cannot train."""

    def schedule(self, num_epochs: int, batch_size: int) -> tuple[int, int]:
        """Passes over a task's rows and rows of a step, given what is configured."""
        return num_epochs, batch_size

    def grow(self, collaborator: Collaborator) -> None:
        """Called before a task's first step, where the networks' outputs come with their labels; and at the end.

        The outputs of new labels are at their start; what is kept for each output has to get as many rows.
        """

    def absorb(self, collaborator: Collaborator, batch: Batch, distill: DistillConfig, ranks: Ranks) -> None:
        """Take in this rank's rows of a step without a gradient; called in place of the rest of a step.

        A method that is `closed_form` must have it.
        """

    def left_out(
        self, collaborator: Collaborator, rows: Batch, units: Units, distill: DistillConfig
    ) -> tuple[Tensor, Tensor]:
        """Judge and small logits, [N, C] each, that labelled rows which were learned would get had their unit not been.

        Called on a finished learner. A method whose configuration says that it `gives_left_out` must have it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no left_out, which gives_left_out requires")

    def without_own_class(self, judge_NC: Tensor, small_NC: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor] | None:
        """Judge and small logits, [N, C] each, of rows whose class had never been learned; -inf for that class.

        The logits are those of rows that were not learned, or were left out. None where the method cannot tell.
        """
        return None

    def tasks_to_stream(self, task: int) -> range:
        """Positions of the tasks whose train rows task number `task` is trained on."""
        return range(task, task + 1)

    def extra_rows(self, step: int, num_rows: int) -> Batch | None:
        """Rows that join the `num_rows` rows of a step; a function of the step alone, so that every rank agrees.

        A weight of 1 makes such a row count as much as a row of the stream.
        """
        return None

    def label_loss(self, logits_NC: Tensor, labels_N: Tensor, num_stream: int, classes: Classes) -> Tensor:
        """What the labels cost under one network's logits, [N]; a row without a label costs nothing.

        The first `num_stream` rows are of the stream, the others are extra rows.
        """
        return F.cross_entropy(logits_NC, labels_N, ignore_index=UNLABELLED, reduction="none")

    def row_loss(self, scored: Scored) -> Tensor:
        """What every row costs, [N]; the step's loss is the mean by weight over the rows of all ranks."""
        return scored.label_loss_N

    def before_update(self, parameters: Parameters) -> None:
        """Called, without autograd, when `grad` holds the gradient over all ranks' rows: add that of a penalty here."""

    def after_update(self, parameters: Parameters) -> None:
        """Called, without autograd, when the optimiser has moved the parameters."""

    def end_task(self, learned: LearnedTask) -> None:
        """Called when the last step of a task has been taken, before the networks are evaluated."""

    def remembers(self) -> bool:
        """Whether `remember` wants the rows of a finished task."""
        return False

    def remember(self, ids: Sequence[str], rows: Batch, task: int) -> None:
        """Offer the labelled train rows of the task that has just been learned, with their ids."""

    def candidates(self, ids: list[str], labels: list[int], task: int) -> list[int]:
        """Positions among a finished task's rows that could enter the memory; only these rows are read."""
        return []

    def forget(self, ids: Collection[str]) -> None:
        """Drop what is remembered of rows with these ids."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next step needs, loadable with `weights_only=True`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""


class LearnerConfig(Component):
    """A continual-learning method and its settings; see docs/extending.md for one of your own."""

    family: ClassVar[Family] = FAMILIES["learner"]
    gives_left_out: ClassVar[bool] = False  # its learner has `left_out`: train rows may choose gate and policy

    name: str = Field("", description="Chooses this form of the section.")

    @abstractmethod
    def build(self, seed: int) -> Learner:
        """A fresh learner that has seen nothing."""

    @property
    def closed_form(self) -> bool:
        """Whether the method solves instead of taking steps: learning rates mean nothing to it."""
        return self.build(seed=0).closed_form

    def check_network(self, network: NetworkConfig) -> None:
        """Raise ConfigError for networks that the method cannot train."""
