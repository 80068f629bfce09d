"""Configuration of routing: the columns of a table of logged answers, and the certificate to issue.

The import is light, since commands make options of these models.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

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


class ReplayColumns(RouteColumns):
    """Names of the columns of logged traffic: of a side that was not asked, the answer is empty.

    Either the answers of both sides have columns, or one column says which side was asked. Without a label, answers of
    both sides on which they differ count as lost. An answer of the large model that was asked for and never came counts
    as lost where the row is kept.
    """

    large_propensity: str | None = Field(
        None, description="Column with the probability with which the large model was asked, 1 where it had to be."
    )
    small_propensity: str | None = Field(
        None, description="Column with that of the small model; null: it was always asked."
    )
    asked: str | None = Field(
        None, description="Column that says whether the large model was asked, where some answers never came."
    )
    route: str | None = Field(None, description="Column with the one side that was asked: small or large.")
    propensity: str | None = Field(None, description="Column with the probability with which that side was asked.")
    correct: str | None = Field(None, description="Column that says whether that side was right.")
    cost: str | None = Field(None, description="Column with what that side's answer cost.")
    keep: str | None = Field(
        None, description="Column with another router's decisions: the probability of keeping a row, such as 0 or 1."
    )

    def check(self) -> None:
        """Raise ConfigError unless it is clear what was seen, and with which probability."""
        single, both = (self.route, self.propensity, self.correct), (self.small_correct, self.large_correct)
        if any(single):
            others = (*both, self.small_prediction, self.large_prediction, self.label, self.large_propensity)
            if not all(single) or any(others):
                raise ConfigError(
                    "it is not clear which side was asked",
                    where="columns",
                    hint="Give route, propensity and correct together, and no answers of both sides",
                )
        else:
            if not all(both) and not (self.small_prediction and self.large_prediction):
                raise ConfigError(
                    "it is not clear what was answered",
                    where="columns",
                    hint="Give small_correct and large_correct, or both predictions; or route, propensity and correct",
                )
            if any(both) and (self.label or self.small_prediction or self.large_prediction):
                raise ConfigError("correctness is given twice", where="columns", hint="Leave out the predictions")
            if not self.large_propensity:
                raise ConfigError(
                    "nothing says with which probability the large model was asked",
                    where="columns.large_propensity",
                    hint="A log without propensities cannot be replayed; name their column",
                )
        if self.confidence and self.score:
            raise ConfigError("confidence and score are two gate scores", where="columns", hint="Give one of them")


class RequestConfig(Config):
    """The promise, what the searched threshold may lose on validate, and whose threshold it is."""

    epsilon: float = Field(0.02, gt=0, lt=1, description="Accuracy that may be lost against the large model alone.")
    delta: float = Field(
        0.1, gt=0, lt=1, description="Probability, over the draw of the certify rows, that the promise breaks."
    )
    mode: Literal["auto", "regret", "net"] = Field(
        "auto",
        description="regret never credits a win of the small model; net does; auto: what keeps more on validate.",
    )
    scope: Literal["global", "every_task", "per_task"] = Field(
        "global",
        description="One threshold; one that holds within every --task; or one for each, at a share of delta.",
    )
    max_loss: float | None = Field(
        None, ge=0, lt=1, description="Loss that the threshold may have on validate; default: epsilon."
    )
    max_call_rate: float | None = Field(
        None, gt=0, lt=1, description="Promise this call rate as well; each promise takes delta/2."
    )
    seed: int = Field(0, ge=0, description="Draws splits where the table names none, and the order of the bets.")

    @property
    def searched_loss(self) -> float:
        """What the searched threshold may lose on validate."""
        return self.epsilon if self.max_loss is None else self.max_loss
