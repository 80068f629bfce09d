"""Stage `window`: the decisions that an attempt learns from and certifies on, each with the purpose of its unit.

The purpose of a unit is drawn by a hash of its name. A unit whose rows the champion's sequence holds already keeps
the split that it has there: nothing that trained is ever certified on, nothing that was held out trains.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import cached_property, reduce
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from kcm.bundle.bundle import Bundle
from kcm.errors import ArtefactError, DataError
from kcm.large.prompting.prompts import PromptMode
from kcm.parquet import read_table, write_table
from kcm.tasks.plan.splits import Fractions, Split, purpose
from pipelines.context import Attempt, Context
from pipelines.loop.certify.scope import MAX_MISSING, WindowScope
from pipelines.loop.config import UpdateConfig
from pipelines.serve.config import ServeConfig
from pipelines.stages.register import BundleArtefact
from pipelines.stages.stage import Plan, Stage
from pipelines.stages.units import rows_of, units_of
from pipelines.store.artefact import Artefact, write_json
from pipelines.store.features import FeaturesArtefact

ROWS, DESCRIPTION = "window.parquet", "window.json"
RULE = 1  # of purposes; another number draws them anew


class Log(Protocol):
    """What is read of the decision log, whose reader is `pipelines.serve.log.window.LogReader`."""

    def window(self, application: str, after: int, upto: int) -> pa.Table:
        """The decisions with numbers in (after, upto], in their order."""
        ...

    def gaps(self, application: str, after: int, upto: int) -> int:
        """How many decisions between these numbers were made and never reached the log."""
        ...

    def forgotten(self, application: str) -> frozenset[str]:
        """The units of decisions that were forgotten since."""
        ...

    @property
    def unit_key(self) -> bytes:
        """What units are named with."""
        ...


class WindowArtefact(Artefact):
    """The decisions of a window with their purposes, the name of its task, and what is known of it as a whole."""

    kind = "window"

    @cached_property
    def table(self) -> pa.Table:
        """The decisions in the columns of the log's reader, with `purpose`; null for what must not be learned from."""
        return read_table(self.folder / ROWS)

    @cached_property
    def description(self) -> Mapping[str, Any]:
        """The content of `window.json`."""
        content: dict[str, Any] = json.loads((self.folder / DESCRIPTION).read_text(encoding="utf-8"))
        return content

    @property
    def task(self) -> str:
        """The name of the task that the window becomes."""
        return str(self.description["task"])

    @property
    def new_labels(self) -> tuple[str, ...]:
        """Labels that people gave and that the champion's list does not have, in the order of the configuration."""
        return tuple(self.description["labels_new"])

    @property
    def forgotten_rows(self) -> frozenset[str]:
        """The ids of rows of the champion's sequence that were deleted from the log since."""
        return frozenset(self.description["forgotten_rows"])

    @property
    def share_floor(self) -> float:
        """The least share of kept items that was audited in the window, pi_min."""
        return float(self.description["share_floor"])

    def of_purpose(self, *purposes: Split) -> pa.Table:
        """The decisions of these purposes."""
        return self.table.filter(pc.is_in(self.table["purpose"], pa.array(purposes)))

    def scope(self, expires_days: float) -> WindowScope:
        """What a certificate on the window has to know of it."""
        known = self.description
        return WindowScope(
            application=known["application"],
            after=known["after"],
            upto=known["upto"],
            num_decisions=known["counts"]["decisions"],
            num_missing=known["counts"]["missing"],
            promoted_after=known["promoted_after"],
            alarm=known["alarm"],
            large_identity=known["large_identity"],
            prompt=known["prompt"],
            trained_units=frozenset(self.of_purpose("train", "validate")["unit"].to_pylist()),
            expires_days=expires_days,
        )


class WindowPlan(Plan):
    """Which decisions, read how, and what they must fit."""

    application: str
    after: int
    upto: int
    champion: str
    salt: str
    fractions: Fractions
    rule: int
    task: str
    labels: tuple[str, ...]
    more_labels: tuple[str, ...]
    none_label: str | None
    tasks: tuple[str, ...]
    large_identity: str
    prompt: PromptMode
    promoted_after: int
    alarm: int | None
    forgotten_rows: tuple[str, ...]
    new_labels: Literal["refuse", "keep"] = "refuse"  # of callers, as the service treats them
    log: Any = Field(exclude=True)  # a Log
    held: dict[str, Split] = Field(exclude=True)  # the splits of units that the champion's sequence holds

    def write(self, attempt: Attempt) -> None:
        """`window.parquet` and `window.json`. DataError, in one line, for a window that nothing may be learned from."""
        rows: pa.Table = self.log.window(self.application, self.after, self.upto)
        missing = int(self.log.gaps(self.application, self.after, self.upto))
        self._refuse(rows, missing)
        given = {*_present(rows, "label"), *_present(rows, "inbox_label")}
        learnable = (rows[name].is_valid() for name in ("unit", "gate_score", "small_label"))
        usable = reduce(pc.and_, learnable).to_pylist()  # forgotten decisions are not, nor those of older services
        units = [unit if good else None for unit, good in zip(rows["unit"].to_pylist(), usable, strict=True)]
        purposes = [self._purpose(unit) for unit in units]
        rows = rows.append_column("purpose", pa.array(purposes, pa.string()))
        write_table(rows, attempt.folder / ROWS)
        kept = sum(unit in self.held for unit in units)
        counts = Counter(each or "none" for each in purposes)
        write_json(
            attempt.folder / DESCRIPTION,
            {
                "application": self.application,
                "after": self.after,
                "upto": self.upto,
                "champion": self.champion,
                "large_identity": self.large_identity,
                "prompt": self.prompt,
                "promoted_after": self.promoted_after,
                "alarm": self.alarm,
                "task": self._task_name(rows),
                "forgotten_rows": self.forgotten_rows,
                "labels_new": [label for label in self.more_labels if label in given],
                "share_floor": float(np.min(rows["audit_share"].to_numpy())),
                "counts": {
                    "decisions": len(rows),
                    "missing": missing,
                    "purposes": dict(sorted(counts.items())),
                    "large_answers": len(rows) - rows["large_label"].null_count,
                    "labels": len(rows) - pc.coalesce(rows["inbox_label"], rows["label"]).null_count,
                },
                "refused": [f"{kept} decisions are of units that keep their earlier split"] if kept else [],
                "labels_unknown": self._unknown(rows),
            },
        )

    def _unknown(self, rows: pa.Table) -> dict[str, int]:
        """How often people gave each label that is in no list: nothing is learned of it."""
        known = {*self.labels, *self.more_labels, self.none_label, None}
        counts = Counter(label for label in rows["label"].to_pylist() if label not in known)
        return dict(counts.most_common())

    def _purpose(self, unit: str | None) -> Split | None:
        if unit is None:
            return None
        return self.held.get(unit) or purpose(f"{self.salt}\0{self.rule}", unit, self.fractions)

    def _task_name(self, rows: pa.Table) -> str:
        """The callers' name where they all give one that is new, else the configured one."""
        named = set(rows["task"].to_pylist())
        if len(named) == 1 and (only := named.pop()) is not None and only not in self.tasks:
            return str(only)
        name = self.task.format(number=self.upto)
        return name if name not in self.tasks else f"{name}-{self.after}"

    def _refuse(self, rows: pa.Table, missing: int) -> None:
        where = f"application {self.application}, decisions {self.after + 1} to {self.upto}"
        for bad, what, hint in self._objections(rows, missing):
            if bad:
                raise DataError(what, where=where, hint=hint)

    def _objections(self, rows: pa.Table, missing: int) -> list[tuple[bool, str, str]]:
        """Whether each objection holds, what it says, and what to do."""
        share, probability = (_numbers(rows, name) for name in ("audit_share", "probability"))
        silent, improbable = ~(share > 0), ~(probability > 0)
        nameless = pc.fill_null(pc.equal(rows["model_version"], ""), True).to_numpy()
        others = sorted(_present(rows, "large_identity") - {self.large_identity})
        lost = missing / max(1, missing + len(rows))
        known = {*self.labels, *self.more_labels}
        given = _present(rows, "inbox_label") | (_present(rows, "label") if self.new_labels == "refuse" else set())
        strange = sorted(given - known - {self.none_label})
        fresh = "Begin the window after that: `kcm promote` the champion again"
        return [
            (
                self.after < self.promoted_after,
                f"the window begins before the champion was promoted, after decision {self.promoted_after}",
                "Wait for traffic after it",
            ),
            (not len(rows), "the log holds no decision", "Wait for traffic, and look at serve.application"),
            (
                self.prompt != "none",
                f"the champion shows the large model prompt {self.prompt}, the log has no answers without it",
                "Set tune.prompt_modes: [none] and run anew",
            ),
            (bool(nameless.any()), f"{nameless.sum()} decisions have no version", f"Update the service. {fresh}"),
            (
                bool(silent.any()),
                f"nothing was audited when {silent.sum()} decisions were made",
                f"Set serve.audit.share. {fresh}",
            ),
            (
                bool(improbable.any()),
                f"{improbable.sum()} decisions have no probability of having been audited",
                f"Update the service. {fresh}",
            ),
            (
                lost > MAX_MISSING,
                f"{missing} decisions are missing from the log, {100 * lost:.2g}% of the window",
                f"{100 * MAX_MISSING:g}% may be missing. {fresh}",
            ),
            (
                bool(others),
                f"answers are of another large model, {', '.join(others[:3])}, than {self.large_identity}",
                fresh,
            ),
            (
                bool(strange),
                f"people gave the label {strange[0]!r}, which is not in the list" if strange else "",
                "Name it in update.more_labels, or delete that feedback with `kcm log forget`",
            ),
        ]


class Window(Stage):
    """`window.parquet` and `window.json` of the decisions in (after, upto].

    `parent` is the champion's bundle, `promoted_after` the last decision before its promotion, and `alarm` the last
    one that the alarm had seen which called for the attempt, if one did.
    """

    stage, version, writes, unit = "window", 1, WindowArtefact, "decisions"

    update: UpdateConfig
    serve: ServeConfig
    application: str
    after: int
    upto: int
    promoted_after: int
    alarm: int | None = None
    parent: Any  # a BundleArtefact
    log: Any  # a Log

    def plan(self, context: Context) -> WindowPlan:
        """The decisions, and the champion's lists. ArtefactError where its sequence is missing."""
        parent: BundleArtefact = self.parent
        bundle = Bundle.read(parent.bundle)
        if bundle.trained_units is None:
            raise ArtefactError(
                "the champion does not list the units that it was trained on: an older version made it",
                where=str(parent.bundle),
                hint="`kcm run` makes one that an update can start from",
            )
        key, forgotten = self.log.unit_key, self.log.forgotten(self.application)
        try:
            sequence = parent.source(FeaturesArtefact, "features").sequence
            held = units_of(sequence, key)
            forgotten_rows = rows_of(sequence, key, forgotten) if forgotten else []
        except (ArtefactError, OSError) as error:
            raise ArtefactError(
                f"the rows that the champion was trained on cannot be read: {error}",
                where=str(parent.folder),
                hint="Restore the storage path that it was made in, or `kcm run` anew",
            ) from None
        return WindowPlan(
            application=self.application,
            after=self.after,
            upto=self.upto,
            champion=bundle.digest,
            salt=self.update.salt,
            fractions=self.update.fractions,
            rule=RULE,
            task=self.update.task,
            labels=bundle.label_names,
            more_labels=tuple(label for label in self.update.more_labels if label not in bundle.label_names),
            none_label=bundle.none_label,
            tasks=bundle.task_names,
            large_identity=bundle.large_identity,
            prompt=bundle.policy.prompt,
            promoted_after=self.promoted_after,
            alarm=self.alarm,
            forgotten_rows=tuple(forgotten_rows),
            new_labels=self.serve.feedback.new_labels,
            log=self.log,
            held={unit: split for unit, split in held.items() if unit not in forgotten},
        )


def _present(rows: pa.Table, column: str) -> set[str]:
    """The values of a column that are there."""
    return set(pc.unique(rows[column]).to_pylist()) - {None}


def _numbers(rows: pa.Table, column: str) -> np.ndarray:
    """A column as float64, NaN where there is nothing."""
    return np.asarray(pc.fill_null(rows[column].cast(pa.float64()), np.nan).to_numpy(), dtype=np.float64)
