"""Stage `ask_again` of an update that learns new labels: the large model answers the window again with its longer list.

The challenger is deployed with a large model that may answer the new labels, and the promise compares with that model.
The log's answers used the old list: an item of a new class got an old label, so a challenger that answers it correctly
would seem to lose. Every question asked then is asked again. An item that was not asked about stays without an answer,
so the logged probabilities of being asked stay correct.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from kcm.encoders.runtime import resolved
from kcm.errors import ConfigError
from kcm.large import LargeConfig
from kcm.parquet import read_table, write_table
from pipelines.batch.asking import ask_shards
from pipelines.batch.shards import write_shard
from pipelines.context import Attempt, Context
from pipelines.loop.window.grown_head import answers_by_grown_head
from pipelines.loop.window.stage import FACTS, ROWS, WindowArtefact
from pipelines.serve.log.window import row_ids
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact, write_json
from pipelines.store.outcomes import FAILED
from pipelines.store.sequence import Names

_SHARD = "window.parquet"


class AskAgain(Stage, Plan):
    """A window whose large answers use the challenger's label list."""

    stage, version, reads, writes, unit = "ask_again", 1, ("window",), WindowArtefact, "decisions"

    large: LargeConfig
    seed: int

    def plan(self, context: Context, window: WindowArtefact) -> AskAgain:
        """Itself. ConfigError for recorded answers, which cannot use a new label."""
        if self.large.is_recorded:
            raise ConfigError(
                f"recorded answers do not know the label {window.facts.new_labels[0]!r}",
                where="--classes",
                hint="Run `kcm run` with rows of that label, or use a large model that answers live",
            )
        return self

    def dependencies(self, window: WindowArtefact) -> tuple[Artefact, ...]:
        """The window, and the champion's outcomes, which identify the large model."""
        return window, self.parent.outcomes

    def write(self, attempt: Attempt, window: WindowArtefact) -> None:
        """The same decisions with new answers. DataError if the large model answers none of them."""
        known_names: Names = self.parent.sequence.names
        names = replace(known_names, labels=(*known_names.labels, *window.facts.new_labels))
        if self.large.fits_on_train:
            new_answers = answers_by_grown_head(attempt, window, self.large, self.seed, self.parent)
        else:
            new_answers = self._asked(attempt, window.table, names)
        write_table(answered_anew(window.table, new_answers, names.answers), attempt.folder / ROWS)
        write_json(attempt.folder / FACTS, window.facts.model_dump(mode="json"))

    def _asked(self, attempt: Attempt, rows: pa.Table, names: Names) -> pa.Table:
        """What a model that needs no fitting answers, as a table of outcomes."""
        context = attempt.context
        answered_rows = rows.filter(rows["large_label"].is_valid())
        text, image = (pc.fill_null(answered_rows[name], empty) for name, empty in (("text", ""), ("image", b"")))
        ids, split = row_ids(answered_rows), pa.array(["train"] * len(answered_rows))
        shard = pa.table({"id": ids, "split": split, "text": text, "image": image})
        write_shard(context.store.storage, [shard], attempt.scratch / "rows" / _SHARD)
        device = context.cluster.device
        large = self.large.with_backbone(lambda backbone: resolved(backbone, context.assets_path, device))
        sources = {_SHARD: attempt.scratch / "rows" / _SHARD}
        ask_shards(attempt, large, names, sources, attempt.scratch / "answers", attempt.scratch / "units")
        return read_table(context.store.storage.readable(attempt.scratch / "answers" / _SHARD))


def answered_anew(rows: pa.Table, new_answers: pa.Table, answers: tuple[str, ...]) -> pa.Table:
    """The decisions with new answers from a table of outcomes; a failed answer is missing, like a lost audit."""
    place = pc.index_in(row_ids(rows), value_set=new_answers["id"].combine_chunks())
    label = new_answers["large_label"].to_pylist()
    failures = new_answers[FAILED].to_pylist()
    # A label outside the list is an answer too; it agrees with no answer of the challenger.
    names = [None if failure else answers[n] if n >= 0 else "" for n, failure in zip(label, failures, strict=True)]
    probabilities = new_answers["large_probabilities"].cast(pa.list_(pa.float32())).combine_chunks()
    known_rows = pa.array(
        [None if row is None or row[0] != row[0] else row for row in probabilities.to_pylist()], probabilities.type
    )
    for name, column in (("large_label", pa.array(names, pa.string())), ("large_probabilities", known_rows)):
        rows = rows.set_column(rows.column_names.index(name), name, column.take(place))
    return rows
