"""The declaration of a stage: name and version, artefacts it reads and writes, its part of the configuration.

A stage is a frozen model whose fields are named after sections of the run's configuration. Its `Plan` holds everything
on which its artefact depends: the stage itself, or what it derives from its fields and the artefacts it reads. The
fingerprint covers all fields of the plan, so that none can be forgotten. `*_: Any, **reads: Any` in a signature stands
for the artefacts that a subclass names.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

from pydantic import Field

from kcm.config import Config
from pipelines.cluster.config import starts_local
from pipelines.context import Attempt, Context
from pipelines.store.artefact import Artefact, Recipe
from pipelines.store.sequence import ShardedArtefact


class Plan(Config):
    """Everything that decides an artefact, except the artefacts it depends on; and how it is written.

    The fingerprint leaves out two kinds of field, which do not change the artefact: those declared with
    `Field(exclude=True)`, and those in the `operational` of a component.
    """

    def section(self) -> dict[str, Any]:
        """The fields that the fingerprint covers, as plain values."""
        return self.model_dump(mode="json", exclude=_operational(self))

    def dependencies(self, *_: Any, **reads: Any) -> tuple[Artefact, ...]:
        """The artefacts that the fingerprint covers: by default all that the stage reads."""
        return tuple(reads.values())

    def needs_workers(self, *_: Any, **reads: Any) -> bool:
        """Whether writing needs a cluster even for few rows."""
        return False

    def starts_cluster(self, context: Context, **reads: Artefact) -> bool:
        """Whether a cluster must be connected: for workers or many rows, or because the user names one."""
        cluster = context.cluster
        sharded = (artefact for artefact in reads.values() if isinstance(artefact, ShardedArtefact))
        if not starts_local(cluster) or self.needs_workers(**reads):
            return True
        return not all(artefact.has_at_most(cluster.in_process_rows) for artefact in sharded)

    @abstractmethod
    def write(self, attempt: Attempt, *_: Any, **reads: Any) -> None:
        """Fill the attempt's folder, from the artefacts that the stage reads."""


class Stage(Config):
    """Base of the stages; `reads` are the kinds of artefacts it reads, which become arguments of its methods.

    A stage whose artefact depends on its configuration alone derives from `Plan` as well, and is its own plan. A stage
    with a `parent` (a `Parent`) continues its task sequence: it inherits what the parent has of the earlier tasks.
    """

    stage: ClassVar[str]
    version: ClassVar[int]
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[type[Artefact]]
    unit: ClassVar[str] = "rows"

    parent: Any = Field(None, exclude=True)

    @classmethod
    def of(cls, run: Config, *, parent: Any = None, **more: Any) -> Self:
        """The stage with its part of a run's configuration; `more` are fields that are no sections of a run."""
        fields = {"parent": parent} | more
        return cls(**{name: getattr(run, name) for name in cls.model_fields if name not in fields}, **fields)

    def check(self) -> None:
        """Raise ConfigError for a configuration that cannot work, before anything is computed."""

    def prepare(self, context: Context, *_: Any, **reads: Any) -> None:
        """Check early what cannot work; called when all inputs of the stage exist and no stage will replace them."""

    def applies(self) -> bool:
        """Whether this run has the stage; without it, its readers read the earlier artefact of the same kind."""
        return True

    def plan(self, context: Context, *_: Any, **reads: Any) -> Plan:
        """Everything on which the artefact depends."""
        own: object = self
        assert isinstance(own, Plan)
        return own

    def recipe(self, plan: Plan, **reads: Any) -> Recipe:
        """The recipe that identifies the artefact of a plan in the store."""
        return Recipe(self.stage, self.version, plan.section(), plan.dependencies(**reads))

    def publish(self, artefact: Any, context: Context) -> None:
        """Called with the artefact in every run, whether it was just built or reused."""

    def build(self, done: Mapping[str, Artefact], context: Context) -> Artefact:
        """The stage's artefact, from the finished artefacts in `done` by kind."""
        reads: dict[str, Any] = {kind: done[kind] for kind in self.reads}
        plan = self.plan(context, **reads)
        recipe, starts = self.recipe(plan, **reads), partial(plan.starts_cluster, context, **reads)
        artefact = context.build(recipe, partial(plan.write, **reads), unit=self.unit, starts_cluster=starts)
        artefact = artefact.as_a(self.writes)
        self.publish(artefact, context)
        return artefact


def run_stages(
    stages: Sequence[Stage], context: Context, known: Mapping[str, Artefact] | None = None
) -> Iterator[tuple[str, Artefact]]:
    """Name and artefact of each stage that applies, built lazily; `known` are artefacts by kind from elsewhere."""
    done = dict(known or {})
    present = [stage for stage in stages if stage.applies()]
    unprepared = dict(enumerate(present))
    for number, stage in enumerate(present):
        for place, later in list(unprepared.items()):
            written_anew = {later_stage.writes.kind for later_stage in present[number:place]}
            if not done.keys() - written_anew >= set(later.reads):
                continue
            del unprepared[place]
            if later is not stage:  # `build` would find the same faults
                later.prepare(context, **{kind: done[kind] for kind in later.reads})
        artefact = done[stage.writes.kind] = stage.build(done, context)
        yield stage.stage, artefact


def _operational(value: object) -> dict[Any, Any]:
    """The operational fields, at any depth, in the form of pydantic's `exclude`."""
    parts: dict[Any, Any] = {}
    if isinstance(value, Config | Mapping):
        parts = dict(value)
    elif isinstance(value, list | tuple):
        parts = dict(enumerate(value))
    below = {name: inner for name, part in parts.items() if (inner := _operational(part))}
    return below | dict.fromkeys(getattr(value, "operational", ()), True)
