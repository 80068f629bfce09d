"""Attempts at a server's answers: the rows that it failed on are asked again by the next run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from rich.markup import escape

from kcm.large import LargeConfig
from kcm.large.base import PaidModel
from pipelines.batch.asking import LargeSpec, server_model
from pipelines.context import Context
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact
from pipelines.store.sequence import Names


class AskingPlan(Plan):
    """A plan whose artefact may lack answers; `attempt` tells the one that the next run makes from the first."""

    large: LargeConfig
    attempt: int = 0

    def section(self) -> dict[str, Any]:
        """The fields that the fingerprint covers."""
        section = super().section()
        return section if self.attempt else {name: value for name, value in section.items() if name != "attempt"}


PlanT = TypeVar("PlanT", bound=AskingPlan)


def next_attempt(
    stage: Stage, plan: PlanT, context: Context, names: Names, num_waiting: Callable[[Any], int], **reads: Artefact
) -> PlanT:
    """The attempt that asks again for rows that still wait; the last one while the server does not answer.

    `num_waiting` counts the rows of a finished artefact that wait.
    """
    while (found := finished(stage, plan, context, **reads)) and (waiting := num_waiting(found)):
        again = plan.model_copy(update={"attempt": plan.attempt + 1})
        if not finished(stage, again, context, **reads) and (reason := server_fault(context, plan.large, names)):
            context.reporter.say(
                f"[yellow]{waiting} rows still wait for an answer of the large model, which does not give one:"
                f" {escape(reason)}[/yellow]"
            )
            break
        plan = again
    return plan


def finished(stage: Stage, plan: Plan, context: Context, **reads: Artefact) -> Artefact | None:
    """The stage's artefact where it was made already."""
    found = context.store.find(stage.recipe(plan, **reads))
    return found and found.as_a(stage.writes)


def server_fault(context: Context, large: LargeConfig, names: Names) -> str | None:
    """Why a server does not answer a question of no row; None where it does, or cannot be asked one."""
    model = server_model(context, LargeSpec(large, names.answers, len(names.labels)))
    if not isinstance(model, PaidModel):
        return None
    answer = model.probe()
    return None if answer.off_label else answer.error
