"""Stage `window`: the logged decisions that an update learns from and certifies on, and the purpose of each unit.

A hash of the unit's name draws its purpose (train, validate, certify or test). If the champion's sequence already holds
rows of a unit, the unit keeps its split: nothing that was trained on is certified on, and nothing that was held out is
trained on. A window that would invalidate a promise is refused before anything is computed.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cached_property, reduce
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from kcm.config import Config
from kcm.errors import DataError
from kcm.parquet import read_table, write_table
from kcm.tasks.splits import Fractions, Split, purpose
from pipelines.config import RunConfig
from pipelines.context import Attempt
from pipelines.loop.state import faults_of
from pipelines.loop.window.naming import ClassNames
from pipelines.serve.log.window import LogReader
from pipelines.stages.parent import Parent
from pipelines.stages.stage import Plan, Stage
from pipelines.stages.units import rows_of, units_of
from pipelines.store.artefact import Artefact, write_json

ROWS, FACTS = "window.parquet", "window.json"
_SALT = "\0".join(("kcm", "1"))  # of the draw of purposes; another number draws new ones
MAX_MISSING = 0.001  # largest share of a window's decisions that may be missing from the log
# Items of train units from which a classifier's head learns a label. On CLINC150 with MiniLM's features the head then
# names some 70% of a new label's items correctly, 88% from 15 items and 96% from 40. A learned label stays, so a label
# learned from too few items would stay bad.
FEWEST_TAUGHT = 5
_AHEAD = timedelta(days=1)  # largest error of a clock
_FRESH = "Begin the window after that: `kcm promote` the champion again"


class WindowFacts(Config):
    """`window.json`: the facts about a window beyond its rows.

    Its decisions have numbers in (`after`, `upto`]. `num_missing` of them never reached the log. `share_floor` is the
    least probability of being asked over all decisions, pi_min. `new_labels` are in none of the champion's lists and
    will be learned; `unknown_labels`, with counts, will not; `untaught_labels` wait until people have given them to
    `FEWEST_TAUGHT` train units, as a classifier's head needs. `forgotten_rows` are ids of the champion's rows that were
    deleted from the log. `signs` is the evidence in the log that refutes the champion's certificate: an alarm, or
    new classes. `num_uncounted` labels exceed `max_share_per_caller`.
    """

    application: str
    after: int
    upto: int
    large_identity: str
    task: str = ""
    share_floor: float = 1.0
    num_decisions: int
    num_missing: int = 0
    num_large_answers: int = 0
    num_labels: int = 0
    new_labels: tuple[str, ...] = ()
    untaught_labels: tuple[str, ...] = ()
    unknown_labels: dict[str, int] = Field({})
    forgotten_rows: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    num_uncounted: int = 0

    @property
    def where(self) -> str:
        """The window in an error."""
        return f"application {self.application}, decisions {self.after + 1} to {self.upto}"


class WindowArtefact(Artefact):
    """The decisions of a window with their purposes, and the facts about the window."""

    kind = "window"

    @cached_property
    def table(self) -> pa.Table:
        """The decisions in the columns of the log's reader, with `purpose`; null for decisions that must not teach."""
        return read_table(self.folder / ROWS)

    @cached_property
    def facts(self) -> WindowFacts:
        """The content of `window.json`."""
        return WindowFacts.model_validate(self.json(FACTS))

    def of_purpose(self, *purposes: Split) -> pa.Table:
        """The decisions of these purposes."""
        return self.table.filter(pc.is_in(self.table["purpose"], pa.array(purposes)))


class LogWindow(Stage, Plan):
    """`window.parquet` and `window.json` of the decisions in (`after`, `upto`].

    `champion` is the digest of the parent's bundle, which determines labels, tasks and large model. `split_by_unit` has
    the splits of the units in the champion's sequence; `named_labels` are to be learned in addition.
    """

    stage, version, writes, unit = "window", 5, WindowArtefact, "decisions"

    application: str
    after: int
    upto: int
    champion: str
    fractions: Fractions
    named_labels: tuple[str, ...] = ()
    forgotten_rows: tuple[str, ...] = ()
    max_share_per_caller: float = 1.0
    bundle: Any = Field(exclude=True)  # the champion's Bundle
    served_as: str = Field(exclude=True)  # the champion's version in the log
    log: Any = Field(exclude=True)  # a LogReader
    split_by_unit: dict[str, Split] = Field(exclude=True)

    @classmethod
    def read_from(
        cls, log: LogReader, config: RunConfig, parent: Parent, after: int, upto: int, names: ClassNames, served_as: str
    ) -> Self:
        """The window of a run's application. ArtefactError if the champion's rows are missing."""
        key, forgotten_items = log.unit_key, log.forgotten()
        split_by_unit = units_of(parent.sequence, key)
        forgotten_rows = rows_of(parent.sequence, key, forgotten_items) if forgotten_items else []
        labels = parent.bundle.label_names
        return cls(
            application=config.application,
            after=after,
            upto=upto,
            champion=parent.bundle.digest,
            fractions=config.require_update().fractions,
            named_labels=tuple(label for label in names.labels() if label not in labels),
            forgotten_rows=tuple(forgotten_rows),
            max_share_per_caller=config.serve.feedback.max_share_per_caller,
            bundle=parent.bundle,
            served_as=served_as,
            log=log,
            split_by_unit={unit: split for unit, split in split_by_unit.items() if unit not in forgotten_items},
        )

    def write(self, attempt: Attempt) -> None:
        """Read the log. DataError, in one line, for a window from which nothing may be learned."""
        rows: pa.Table = self.log.window(self.after, self.upto, self.max_share_per_caller)
        learnable = (rows[name].is_valid() for name in ("unit", "gate_score", "small_label"))
        usable = reduce(pc.and_, learnable).to_pylist()  # forgotten decisions have none
        pairs = zip(rows["unit"].to_pylist(), usable, strict=True)
        purposes = [self._purpose(unit) if is_usable else None for unit, is_usable in pairs]
        known_names = {*self.bundle.label_names, *self.named_labels, self.bundle.none_label, None}
        row_labels = rows["label"].to_pylist()
        unknown_labels = Counter(label for label in row_labels if label not in known_names)
        train_counts = Counter(label for label, purpose in zip(row_labels, purposes, strict=True) if purpose == "train")
        fewest = FEWEST_TAUGHT if self.bundle.large.fits_on_train else 0
        learned_labels = tuple(label for label in self.named_labels if train_counts[label] >= fewest)
        facts = WindowFacts(
            application=self.application,
            after=self.after,
            upto=self.upto,
            large_identity=self.bundle.large_identity,
            task=self._task_name,
            # Given the decisions, the probabilities of being asked are fixed; where all was escalated, the floor is 1.
            share_floor=pc.min(rows["probability"]).as_py() or 0.0,
            num_decisions=len(rows),
            num_missing=self.log.gaps(self.after, self.upto),
            num_large_answers=len(rows) - rows["large_label"].null_count,
            num_labels=len(rows) - row_labels.count(None),
            new_labels=learned_labels,
            untaught_labels=tuple(label for label in self.named_labels if label not in learned_labels),
            unknown_labels=dict(unknown_labels.most_common()),
            forgotten_rows=self.forgotten_rows,
            signs=faults_of(self.log, self.served_as),
            num_uncounted=self.log.uncounted(self.after, self.upto, self.max_share_per_caller),
        )
        require_sound(rows, facts)
        if facts.untaught_labels and not learned_labels and self.bundle.policy.lowest_cut < np.inf:
            raise _untaught(facts, train_counts)  # a champion that keeps nothing may have a successor too
        write_table(rows.append_column("purpose", pa.array(purposes, pa.string())), attempt.folder / ROWS)
        write_json(attempt.folder / FACTS, facts.model_dump(mode="json"))

    def _purpose(self, unit: str) -> Split:
        return self.split_by_unit.get(unit) or purpose(_SALT, unit, self.fractions)

    @property
    def _task_name(self) -> str:
        """A name from the log's watermark, which a promoted version that was labelled again has already."""
        name = f"traffic-{self.upto}"
        return name if name not in self.bundle.task_names else f"{name}-{self.after}"


def _untaught(facts: WindowFacts, train_counts: Counter[str | None]) -> DataError:
    """Why a turn waits for labels of its new classes; `taught` counts these labels in its train units."""
    counts = ", ".join(f"{label!r} {train_counts[label]}" for label in facts.untaught_labels)
    return DataError(
        f"the large model's head needs {FEWEST_TAUGHT} labelled items of train units per label; so far {counts}",
        where=facts.where,
        hint="Send more labels as feedback, wait for more traffic, or withdraw the label by --classes",
    )


def require_sound(rows: pa.Table, facts: WindowFacts, now: datetime | None = None) -> None:
    """Raise DataError for the first fact that would invalidate a certificate on these decisions."""
    if not len(rows):
        raise DataError(
            "the log holds no decision", where=facts.where, hint="Wait for traffic, and look at serve.application"
        )
    silent = int((rows["audit_share"].to_numpy() <= 0).sum())
    other_identities = sorted(set(pc.unique(rows["large_identity"]).to_pylist()) - {facts.large_identity, None})
    missing = facts.num_missing / (facts.num_missing + len(rows))
    latest = pc.max(rows["answered_at"]).as_py()
    objections = [
        (silent, f"nothing was audited when {silent} decisions were made", f"Set serve.audit.share. {_FRESH}"),
        (
            missing > MAX_MISSING,
            f"{facts.num_missing} decisions are missing from the log, {100 * missing:.2g}% of the window",
            f"At most {100 * MAX_MISSING:g}% may be missing. {_FRESH}",
        ),
        (
            other_identities,
            f"another large model gave answers: {', '.join(other_identities[:3])}, not {facts.large_identity}",
            _FRESH,
        ),
        (
            latest > (now or datetime.now(UTC)) + _AHEAD,
            f"decisions are dated up to {latest}, which is in the future",
            "Set the clocks right: they decide when a certificate expires",
        ),
    ]
    for holds, objection, hint in objections:
        if holds:
            raise DataError(objection, where=facts.where, hint=hint)
