"""A stage, declared: its name and version, the artefacts it reads, its part of the configuration, and what it writes.

A stage is a frozen model whose fields are named after sections of the run's configuration. What its artefact depends on
is a `Plan`: the stage itself, or what it makes of its part once the artefacts that it reads are there. The fingerprint
covers all fields of the plan, so that none can be forgotten.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

from kcm.config import Config
from pipelines.context import Attempt, Context
from pipelines.store.artefact import Artefact, Recipe


class Plan(Config):
    """All that decides an artefact beside the artefacts that it is made of, and how it is written.

    Two kinds of field decide nothing and are left out of the fingerprint: those declared with `Field(exclude=True)`,
    and those that the model of a component names in its `operational`.
    """

    def section(self) -> dict[str, Any]:
        """What the fingerprint covers, as plain values."""
        return self.model_dump(mode="json", exclude=_operational(self))

    def dependencies(self, **reads: Artefact) -> tuple[Artefact, ...]:
        """The artefacts that the fingerprint covers: all that the stage reads."""
        return tuple(reads.values())

    @abstractmethod
    def write(self, attempt: Attempt, **reads: Any) -> None:
        """Fill the attempt's folder, from the artefacts that the stage reads."""


class Stage(Config):
    """Base of the stages; `reads` are kinds of artefacts, which methods are given by these names.

    One whose artefact depends on its part of the configuration alone is a `Plan` as well, and so its own.
    """

    stage: ClassVar[str]
    version: ClassVar[int]
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[type[Artefact]]
    unit: ClassVar[str] = "rows"

    @classmethod
    def of(cls, run: Config, **more: Config) -> Self:
        """The stage with its part of a run's configuration; `more` are parts that a run does not have."""
        return cls(**{name: getattr(run, name) for name in cls.model_fields if name not in more}, **more)

    def check(self) -> None:
        """Raise ConfigError for what cannot work, before anything is computed."""

    def applies(self) -> bool:
        """Whether this run has the stage at all; what would read its artefact reads the one before of the same kind."""
        return True

    def plan(self, context: Context, **reads: Any) -> Plan:
        """What the artefact depends on."""
        assert isinstance(self, Plan)
        return self

    def publish(self, artefact: Any, context: Context) -> None:
        """What is done with the artefact whenever a run comes by, whether or not it was there already."""

    def build(self, done: Mapping[str, Artefact], context: Context) -> Artefact:
        """The stage's artefact, made of artefacts that are `done`, by their kind."""
        reads = {kind: done[kind] for kind in self.reads}
        plan = self.plan(context, **reads)
        recipe = Recipe(self.stage, self.version, plan.section(), plan.dependencies(**reads))
        artefact = context.build(recipe, partial(plan.write, **reads), unit=self.unit).as_a(self.writes)
        self.publish(artefact, context)
        return artefact


def run_stages(stages: Sequence[Stage], context: Context) -> Iterator[tuple[str, Artefact]]:
    """The name and the artefact of each stage that this run has, computed when asked for."""
    done: dict[str, Artefact] = {}
    for stage in stages:
        if stage.applies():
            artefact = done[stage.writes.kind] = stage.build(done, context)
            yield stage.stage, artefact


def _operational(value: object) -> dict[Any, Any]:
    """The fields that decide nothing, at any depth, in the form of pydantic's `exclude`."""
    parts: dict[Any, Any] = {}
    if isinstance(value, Config | Mapping):
        parts = dict(value)
    elif isinstance(value, list | tuple):
        parts = dict(enumerate(value))
    below = {name: inner for name, part in parts.items() if (inner := _operational(part))}
    return below | dict.fromkeys(getattr(value, "operational", ()), True)
