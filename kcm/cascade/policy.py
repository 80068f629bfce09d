"""The policy of a deployed cascade: which rows the small model answers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from kcm.cascade.gate import GateName
from kcm.cascade.thresholds import FAR, KEEPS_ALL
from kcm.config import Config, parse_config
from kcm.errors import ArtefactError

POLICY_FILE = "policy.json"
DecisionKind = Literal["threshold", "keep_all", "escalate_all"]
OnLargeFailure = Literal["answer_small", "error"]
Goal = Literal["calls", "accuracy"]


class Decision(Config):
    """Keep above a threshold, keep all, or escalate all; only the first has a threshold, so JSON needs no infinity."""

    decision: DecisionKind
    threshold: float | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Decision:
        if (self.threshold is not None) != (self.decision == "threshold"):
            raise ValueError(f"decision {self.decision!r} with threshold {self.threshold}: only 'threshold' has one")
        return self

    @classmethod
    def of(cls, threshold: float) -> Decision:
        """The decision for `threshold`: -inf keeps all within reach, +inf escalates all."""
        if threshold < KEEPS_ALL or threshold == math.inf:
            return cls(decision="escalate_all" if threshold > 0 else "keep_all")
        return cls(decision="threshold", threshold=threshold)

    @property
    def cut(self) -> float:
        """The threshold as a number: FAR for `keep_all`, +inf for `escalate_all`."""
        if self.decision == "threshold":
            assert self.threshold is not None
            return self.threshold
        return math.inf if self.decision == "escalate_all" else FAR

    def keep(self, score: ArrayLike) -> NDArray[np.bool_]:
        """Rows the small model answers, in the shape of `score`."""
        return np.asarray(np.asarray(score, dtype=np.float64) > self.cut)


ESCALATE_ALL = Decision(decision="escalate_all")
KEEP_ALL = Decision(decision="keep_all")


def keeps_all_words(farthest: float | None) -> str:
    """What keep_all does, in words: `farthest` of the policy decides whether anything escalates."""
    return "the small model answers everything" + (
        ", also inputs unlike all train rows" if farthest is None else " except inputs far from all train rows"
    )


class Policy(Config):
    """Thresholds, and everything that their gate score depends on; immutable.

    A policy is written by the search and when it is deployed: after its certificate, and in the bundle.

    `task_decisions` hold for requests that carry one of these tasks; every other request follows `decision`.
    """

    gate: GateName = "confidence"
    temperature: float = Field(1.0, gt=0, description="Softmax temperature of the judge inside the gate score.")
    farthest: float | None = Field(
        None, gt=0, description="Inputs farther than this from all known classes escalate, see `Reach`; null: none do."
    )
    decision: Decision = ESCALATE_ALL
    task_decisions: dict[str, Decision] = Field(default_factory=dict)
    goal: Goal = Field("calls", description="The search looked for the fewest calls, or the highest accuracy.")
    on_large_failure: OnLargeFailure = "answer_small"

    def on_failure(self, on_large_failure: OnLargeFailure | None) -> Policy:
        """The same policy with another answer for inputs on which the large model fails; None changes nothing."""
        return self.model_copy(update={"on_large_failure": on_large_failure}) if on_large_failure else self

    def save(self, folder: Path) -> None:
        """Write the policy's file into a folder."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
        (folder / POLICY_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Policy:
        """Read a policy from its folder. Raises ArtefactError without a readable file, ConfigError for bad values."""
        file = folder / POLICY_FILE
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ArtefactError(
                f"no policy can be read: {error}", where=str(file), hint="Run the stage again"
            ) from None
        return parse_config(cls, values, where=str(file))

    @property
    def scope(self) -> Literal["global", "per_task"]:
        """Whether requests that carry their task have thresholds of their own."""
        return "per_task" if self.task_decisions else "global"

    @property
    def lowest_cut(self) -> float:
        """The lowest threshold of all requests."""
        return min(decision.cut for decision in (self.decision, *self.task_decisions.values()))

    def decision_for(self, task: str | None) -> Decision:
        """The decision for a request that carries `task`, or none."""
        return self.decision if task is None else self.task_decisions.get(task, self.decision)

    def cuts(self, tasks: Sequence[str | None] | NDArray[np.object_] | None, num_rows: int) -> NDArray[np.float64]:
        """The threshold of every row, [N]; FAR or infinite if all rows or none are kept."""
        if tasks is None or not self.task_decisions:
            return np.full(num_rows, self.decision.cut)
        return np.array([self.decision_for(task).cut for task in tasks], dtype=np.float64)

    def keep(
        self, score: ArrayLike, tasks: Sequence[str | None] | NDArray[np.object_] | None = None
    ) -> NDArray[np.bool_]:
        """Rows the small model answers, [N], from gate scores [N] and the requests' tasks [N], if they carry tasks."""
        score_N = np.asarray(score, dtype=np.float64)
        return np.asarray(score_N > self.cuts(tasks, len(score_N)))
