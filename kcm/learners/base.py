"""The decisions of a continual-learning method: tasks to stream, rows to remember, protection of old tasks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
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
"""Parameters of the networks by name; a parameter shared by judge and small model occurs once."""


@dataclass(frozen=True)
class Batch:
    """Rows of one step: features [N, D], labels [N], large probabilities [N, C] (NaN for missing answers).

    A row without a label has the label UNLABELLED; its loss then comes from the teachers alone.

    `weights` [N] are the rows' weights in the loss: 1 for a row of the stream, 0 for the padding that makes every
    rank's slice equally long. `logits` [N, M, C] are the networks' stored outputs for remembered rows, NaN if not used.
    """

    features: Tensor
    labels: Tensor
    large_probabilities: Tensor
    weights: Tensor
    logits: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Batch:
        """The same rows on a device."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items() if tensor is not None})

    def take(self, index: Tensor, weights: Tensor) -> Batch:
        """The rows at `index`, with these weights, both from any device."""
        index, weights = index.to(self.features.device), weights.to(self.features.device)
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
        """The same rows, with large probabilities and logits over the first `num_labels` labels.

        The large model gets probability 0 for labels it was not asked about; a row without an answer stays without one.
        The networks' logits for labels that came later are NaN.
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
    """The rows of one or more batches in order; if only some batches have logits, the others' rows get NaN."""
    batches = list(parts)
    if len(batches) == 1:
        return batches[0]
    names = ("features", "labels", "large_probabilities", "weights")
    columns = {name: torch.cat([getattr(part, name) for part in batches]) for name in names}
    known = next((part.logits for part in batches if part.logits is not None), None)
    if known is None:
        return Batch(**columns)
    blank = known.new_full((1, *known.shape[1:]), torch.nan)
    logits = [blank.expand(len(part), -1, -1) if part.logits is None else part.logits for part in batches]
    return Batch(**columns, logits=torch.cat(logits))


@dataclass(frozen=True)
class Classes:
    """Labels from the current task's view, bool [C]: its own labels, and the labels of all tasks so far."""

    current_C: Tensor
    seen_C: Tensor

    @property
    def old_C(self) -> Tensor:
        """Labels of earlier tasks only."""
        return self.seen_C & ~self.current_C


@dataclass(frozen=True)
class Scored:
    """This rank's rows of a step, the networks' outputs for them, and the loss of their labels and teachers."""

    batch: Batch
    collaborator: Collaborator
    logits_MNC: Tensor
    label_loss_N: Tensor


@dataclass(frozen=True)
class LearnedTask:
    """A task that has just been learned: the finished networks, and this rank's share of its labelled train rows.

    `batches` can be read once; padding has weight 0. `num_rows` counts the rows of all ranks. `seen_C` (bool) marks the
    labels of the tasks so far. `active_C` marks the labels whose logits take part in the loss: all labels, or the seen
    ones under seen-class masking.
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

    A step: `extra_rows` join the rows of the stream; `label_loss` returns the loss of the labels under each network,
    and `row_loss` the loss of every row; the gradients of the weighted mean are summed over ranks; `before_update`; the
    optimiser step; `after_update`. After the last step of a task: `end_task`, then `remember`.
    """

    closed_form: ClassVar[bool] = False  # rows go to `absorb`, once each; there is no optimiser step
    chunk_size: int = 8192  # rows of all ranks in a call of `absorb`
    restarts: ClassVar[bool] = False  # networks are initialised again at every task
    on_cpu: ClassVar[bool] = False  # networks and rows stay on the CPU if workers have GPUs
    stores_logits: ClassVar[bool] = False  # remembered rows carry the logits of the finished networks

    def __init_subclass__(cls, **options: Any) -> None:
        """Check at import that a method has the hooks that its capabilities require."""
        super().__init_subclass__(**options)
        if cls.closed_form and cls.absorb is Learner.absorb:
            raise TypeError(f"{cls.__name__} is closed_form, but lacks `absorb`")

    def check(self, num_labels: int) -> None:
        """Raise ConfigError if the method cannot work with this number of labels."""

    def require(self, collaborator: Collaborator) -> None:
        """Raise ConfigError for networks that the method cannot train."""

    def grow(self, collaborator: Collaborator) -> None:
        """Called before a task's first step if outputs come with their labels, and once at the end.

        The outputs of new labels are at their start. Extend everything that is stored per output to the new labels.
        """

    def absorb(self, collaborator: Collaborator, batch: Batch, distill: DistillConfig, ranks: Ranks) -> None:
        """Process this rank's rows of a chunk; required if the method is `closed_form`, and never called otherwise."""

    def left_out(
        self, collaborator: Collaborator, rows: Batch, units: Units, distill: DistillConfig
    ) -> tuple[Tensor, Tensor]:
        """Judge and small logits, [N, C] each, of learned labelled rows as if their unit had not been learned.

        Called on a finished learner. Required if the method's configuration says `gives_left_out`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no left_out, which gives_left_out requires")

    def without_own_class(self, judge_NC: Tensor, small_NC: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor] | None:
        """Judge and small logits, [N, C] each, of rows as if their class had never been learned; -inf for that class.

        The logits passed in belong to rows that were not learned, or were left out. None if the method cannot tell.
        """
        return None

    def tasks_to_stream(self, task: int) -> range:
        """Positions of the tasks whose train rows are used to train task number `task`."""
        return range(task, task + 1)

    def extra_rows(self, step: int, num_rows: int) -> Batch | None:
        """Rows that join the `num_rows` rows of a step; a function of the step alone, so that every rank agrees.

        A weight of 1 makes such a row count as much as a row of the stream.
        """
        return None

    def label_loss(self, logits_NC: Tensor, labels_N: Tensor, num_stream: int, classes: Classes) -> Tensor:
        """The loss of the labels under one network's logits, [N]; 0 for a row without a label.

        The first `num_stream` rows come from the stream, the others are extra rows.
        """
        return F.cross_entropy(logits_NC, labels_N, ignore_index=UNLABELLED, reduction="none")

    def row_loss(self, scored: Scored) -> Tensor:
        """The loss of every row, [N]; the step's loss is the weighted mean over the rows of all ranks."""
        return scored.label_loss_N

    def before_update(self, parameters: Parameters) -> None:
        """Called without autograd when `grad` holds the gradient over all ranks' rows; a penalty adds its gradient."""

    def after_update(self, parameters: Parameters) -> None:
        """Called without autograd after the optimiser step."""

    def end_task(self, learned: LearnedTask) -> None:
        """Called after the last step of a task, before the networks are evaluated."""

    def remembers(self) -> bool:
        """Whether `remember` wants the rows of a finished task."""
        return False

    def remember(self, ids: Sequence[str], rows: Batch, task: int) -> None:
        """Offer the labelled train rows of the task that has just been learned, with their ids."""

    def candidates(self, ids: list[str], labels: list[int], task: int) -> list[int]:
        """Positions among a finished task's rows that could enter the memory; only these rows are read."""
        return []

    def forget(self, ids: Collection[str]) -> None:
        """Remove everything that is remembered of rows with these ids."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step needs, loadable with `weights_only=True`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from `state_dict`."""


class LearnerConfig(Component):
    """A continual-learning method and its settings; docs/extending.md shows how to add your own."""

    family: ClassVar[Family] = FAMILIES["learner"]
    gives_left_out: ClassVar[bool] = False  # its learner has `left_out`: train rows may choose gate and policy

    name: str = Field("", description="Chooses the learner.")

    @abstractmethod
    def build(self, seed: int) -> Learner:
        """A fresh learner that has seen nothing."""

    @property
    def closed_form(self) -> bool:
        """Whether the method solves in closed form, so that learning rates have no effect."""
        return self.build(seed=0).closed_form

    def check_network(self, network: NetworkConfig) -> None:
        """Raise ConfigError for networks that the method cannot train."""
