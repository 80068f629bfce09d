"""The forms that a gate can take: a score of the judge's logits alone, or a head that is fitted on validate rows.

A form is a component, chosen by its name; what it makes is a head, which scores rows. Shapes: N rows, D features, C
labels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from kcm.cascade.reference import Reference
from kcm.components import FAMILIES, Component, Family
from kcm.errors import ConfigError


@dataclass(frozen=True, eq=False)
class GateInputs:
    """What a gate may read of N rows; logits are over the labels of the small side, divided by the temperature."""

    judge_logits_NC: NDArray[np.float64]
    small_logits_NC: NDArray[np.float64]
    features_ND: NDArray[np.float32] | NDArray[np.float64] | None = None


class GateHead(Protocol):
    """What a form makes: it scores rows."""

    def score(self, inputs: GateInputs) -> NDArray[np.float64]:
        """Gate score [N]; larger is surer."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What was fitted, by name; empty where nothing is."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class GateRows:
    """Validate rows to fit a head on: what it may read, and who was right; every column [N].

    Rows of one `group` were drawn together. `reference` is what the small side has kept of the rows that it learned.
    """

    inputs: GateInputs
    small_correct: NDArray[np.bool_]
    large_correct: NDArray[np.bool_]
    group: NDArray[np.object_] | None = None
    reference: Reference = field(default_factory=Reference.nothing)
    seed: int = 0


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head, and its scores [N] for the rows that it was fitted on: out-of-fold ones, as a search has to use."""

    head: GateHead
    scores: NDArray[np.float64]


class GateForm(Component):
    """How a gate score is made; chosen by its name alone."""

    family: ClassVar[Family] = FAMILIES["gate score"]
    reads_features: ClassVar[bool] = True  # fitting and scoring need the encoder's features

    gate: str = Field("", description="Chooses this gate score.")

    @abstractmethod
    def unfitted(self) -> GateHead:
        """The head of a form that has nothing to fit. Raises ConfigError for another."""

    @abstractmethod
    def restored(self, tensors: Mapping[str, Tensor]) -> GateHead:
        """The head that gave these tensors; RuntimeError where they are another's."""

    @abstractmethod
    def fit(self, rows: GateRows) -> FittedHead:
        """A head for these rows."""


class FittedForm(GateForm):
    """A form whose head is fitted on validate rows, stored with the policy and sealed into bundles."""

    def unfitted(self) -> GateHead:
        """Raises ConfigError: there is none."""
        raise ConfigError(f"the gate {self.gate!r} needs its fitted head", where="gate", hint="Fit one on validate")
