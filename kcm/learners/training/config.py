"""The section `train` of a configuration: how every task is trained, whatever the learner."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from pydantic import Field
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from kcm.config import Config


class TrainConfig(Config):
    """How every task is trained."""

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
    window: int = Field(
        16,
        ge=1,
        description="Row groups of 1,024 rows among which rows are shuffled; a worker holds two windows in memory.",
    )

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
        return AdamW(parameters, self.learning_rate, weight_decay=self.weight_decay)
