"""Configuration of routing: the columns of a table of logged answers, and the certificate to issue.

The import is light, because commands turn these models into options.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from kcm.config import Config
from kcm.errors import ConfigError


class RouteColumns(Config):
    """Names of the columns of a table with the logged answers of a small and a large model.

    Correctness comes from `small_correct` and `large_correct`, or from both predictions and the `label`.
    """

    small_correct: str | None = Field(None, description="Column that says whether the small model was right.")
    large_correct: str | None = Field(None, description="Column that says whether the large model was right.")
    small_prediction: str | None = Field(None, description="Column with the small model's answer; empty: wrong.")
    large_prediction: str | None = Field(None, description="Column with the large model's answer; empty: it failed.")
    label: str | None = Field(None, description="Column with the right answer.")
    confidence: str | None = Field(None, description="Column with the small model's confidence, in [0, 1].")
    score: str | None = Field(None, description="Column with any other score; larger means a surer small model.")
    text: str | None = Field(None, description="Column with the input's text; features are computed from it.")
    small_response: str | None = Field(
        None, description="Column with the small model's full reply; features are computed from it as well."
    )
    features: tuple[str, ...] = Field(
        (), description="Columns with numeric features; `name*` means all columns whose names start with name."
    )
    category: str | None = Field(
        None, description="Column with a category of the input, such as its subject or language; routers use it."
    )
    small_cost: str | None = Field(None, description="Column with the cost of the small model's answer.")
    large_cost: str | None = Field(None, description="Column with the cost of the large model's answer, in that unit.")
    id: str | None = Field(None, description="Column with a unique id; by default the number of the row.")
    group: str | None = Field(None, description="Column that names rows drawn together, such as a user.")
    split: str | None = Field(
        None, description="Column with train, validate, certify or test; by default rows are drawn by a seed."
    )

    def check(self) -> None:
        """Raise ConfigError unless the columns say who was right and which column is the gate score."""
        correctness = [self.small_correct, self.large_correct]
        compared = [self.small_prediction, self.large_prediction, self.label]
        if all(correctness) == all(compared) or (any(correctness) and any(compared)):
            raise ConfigError(
                "no columns say which model was right",
                where="columns",
                hint="Give small_correct and large_correct, or label and both predictions",
            )
        if self.confidence and self.score:
            raise ConfigError("confidence and score are two gate scores", where="columns", hint="Give one of them")
        if self.small_cost and not self.large_cost:
            raise ConfigError("small_cost has no effect without large_cost", where="columns")

    @property
    def named(self) -> dict[str, str]:
        """Columns by the field that names them, without features."""
        names = self.model_dump(exclude={"features"}, exclude_none=True)
        return {field: str(column) for field, column in names.items()}


class RequestConfig(Config):
    """The promise, and the loss that the searched threshold may have on validate rows."""

    epsilon: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="Largest loss of accuracy against the large model alone; 0: none, by net.",
    )
    delta: float = Field(
        0.1, gt=0, lt=1, description="Probability, over the draw of the certify rows, that the promise breaks."
    )
    mode: Literal["auto", "regret", "net"] = Field(
        "auto",
        description="regret never credits a win of the small model; net does; auto: regret, unless the small model is"
        " clearly better on the rows that choose.",
    )
    max_loss: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Loss allowed on validate rows in a search; default: no search, the lowest certified threshold.",
    )
    seed: int = Field(0, ge=0, description="Draws splits if the table names none.")

    @property
    def needs_validate(self) -> bool:
        """Whether rows must be set aside: for the path of `net`, or for a search."""
        return self.mode == "net" or self.epsilon == 0 or self.max_loss is not None

    @model_validator(mode="after")
    def _provable(self) -> RequestConfig:
        if self.epsilon == 0 and self.mode == "regret":
            raise ValueError("epsilon 0 needs mode net or auto: regret never credits a win of the small model")
        return self
