"""Configuration of routing: the columns of a table of logged answers, and the certificate to issue.

The import is light, since commands make options of these models.
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
    correct_at: float | None = Field(
        None, description="A number in the correctness columns counts as right from here on; null: they hold 0 and 1."
    )
    small_prediction: str | None = Field(None, description="Column with the small model's answer; empty: none, wrong.")
    large_prediction: str | None = Field(None, description="Column with the large model's answer; empty: it failed.")
    label: str | None = Field(None, description="Column with the right answer.")
    confidence: str | None = Field(None, description="Column with the small model's confidence, in [0, 1].")
    score: str | None = Field(None, description="Column with any other score, larger where the small model is surer.")
    text: str | None = Field(None, description="Column with the input's text, which features are made of.")
    small_response: str | None = Field(
        None, description="Column with all that the small model wrote, which features are made of too."
    )
    features: tuple[str, ...] = Field(
        (), description="Columns with numeric features; `name*` stands for all that start with name."
    )
    category: str | None = Field(
        None, description="Column with a category of the input, such as its subject or language, which routers read."
    )
    small_cost: str | None = Field(None, description="Column with what the small model's answer cost.")
    large_cost: str | None = Field(None, description="Column with what the large model's answer cost, in that unit.")
    id: str | None = Field(None, description="Column with a unique id; null: rows are called by their number.")
    group: str | None = Field(None, description="Column that tells which rows were drawn together, such as a user.")
    task: str | None = Field(None, description="Column with the task of a row, known when it is routed.")
    split: str | None = Field(None, description="Column with train, validate, certify or test; null: drawn by a seed.")

    def check(self) -> None:
        """Raise ConfigError unless it is clear who was right and which column is the gate score."""
        correctness = [self.small_correct, self.large_correct]
        compared = [self.small_prediction, self.large_prediction, self.label]
        if all(correctness) == all(compared) or (any(correctness) and any(compared)):
            raise ConfigError(
                "it is not clear who was right",
                where="columns",
                hint="Give small_correct and large_correct, or small_prediction, large_prediction and label",
            )
        if self.confidence and self.score:
            raise ConfigError("confidence and score are two gate scores", where="columns", hint="Give one of them")
        if self.correct_at is not None and not self.small_correct:
            raise ConfigError("correct_at has no effect without small_correct and large_correct", where="columns")
        if self.small_cost and not self.large_cost:
            raise ConfigError("small_cost has no effect without large_cost", where="columns")

    @property
    def named(self) -> dict[str, str]:
        """Columns by the field that names them, features left out."""
        names = self.model_dump(exclude={"features", "correct_at"}, exclude_none=True)
        return {field: str(column) for field, column in names.items()}


class RequestConfig(Config):
    """The promise, what the searched threshold may lose on validate, and whose threshold it is."""

    epsilon: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="Accuracy that may be lost against the large model alone; 0: at least as accurate, by net.",
    )
    delta: float = Field(
        0.1, gt=0, lt=1, description="Probability, over the draw of the certify rows, that the promise breaks."
    )
    mode: Literal["auto", "regret", "net"] = Field(
        "auto",
        description="regret never credits a win of the small model; net does; auto: regret, unless the small model is"
        " clearly better on the rows that choose.",
    )
    scope: Literal["global", "every_task", "per_task"] = Field(
        "global",
        description="One threshold; one that holds within every --task; or one for each, at a share of delta.",
    )
    max_loss: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Loss that the threshold may have on validate rows; default: no search, the lowest certified one.",
    )
    max_call_rate: float | None = Field(
        None, gt=0, lt=1, description="Promise this call rate as well; each promise takes delta/2."
    )
    seed: int = Field(0, ge=0, description="Draws splits where the table names none.")

    @property
    def needs_validate(self) -> bool:
        """Whether rows have to be set aside: for the path of `net`, or for a search."""
        return self.mode == "net" or self.epsilon == 0 or self.max_loss is not None

    @model_validator(mode="after")
    def _provable(self) -> RequestConfig:
        if self.epsilon == 0 and self.mode == "regret":
            raise ValueError("epsilon 0 needs mode net or auto: regret never credits a win of the small model")
        return self
