"""The kinds of gate: a score of the judge's logits alone, or a head that is fitted on validate rows.

A form is a component, chosen by its name. It makes a head, and the head scores rows.
Shapes: N rows, D features, C labels.
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
    """The inputs of a gate for N rows; logits are over the labels of the small side, divided by the temperature."""

    judge_logits_NC: NDArray[np.float64]
    small_logits_NC: NDArray[np.float64]
    features_ND: NDArray[np.float32] | NDArray[np.float64] | None = None


class GateHead(Protocol):
    """Scores rows; made by a form."""

    def score(self, inputs: GateInputs) -> NDArray[np.float64]:
        """Gate score [N]; larger is surer."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """The fitted values by name; empty if there are none."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class GateRows:
    """Validate rows to fit a head on: its inputs, and the correctness of both models; every column [N].

    Rows of one `group` were drawn together. `reference` is what the small side remembers of the rows it learned.
    """

    inputs: GateInputs
    small_correct: NDArray[np.bool_]
    large_correct: NDArray[np.bool_]
    group: NDArray[np.object_] | None = None
    reference: Reference = field(default_factory=Reference.nothing)
    seed: int = 0


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head, and its out-of-fold scores [N] for the rows that it was fitted on, as a search needs them."""

    head: GateHead
    scores: NDArray[np.float64]


class GateForm(Component):
    """A way to compute a gate score; chosen by its name alone."""

    family: ClassVar[Family] = FAMILIES["gate score"]
    reads_features: ClassVar[bool] = True  # fitting and scoring need the encoder's features

    gate: str = Field("", description="Chooses this gate score.")

    def unfitted(self) -> GateHead:
        """The head of a form that has nothing to fit. Raises ConfigError for a form that has."""
        raise ConfigError(f"the gate {self.gate!r} needs its fitted head", where="gate", hint="Fit one on validate")

    @abstractmethod
    def restored(self, tensors: Mapping[str, Tensor]) -> GateHead:
        """The head from its tensors. Raises RuntimeError if they belong to another form."""

    @abstractmethod
    def fit(self, rows: GateRows) -> FittedHead:
        """A head for these rows."""


class FittedForm(GateForm):
    """A form whose head is fitted on validate rows, stored with the policy and sealed into bundles."""
