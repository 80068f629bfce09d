"""The measured rows that a cascade keeps and answers wrongly, as people read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds

from kcm.cascade.policy import Policy
from kcm.cascade.table import Split
from kcm.parquet import read_table
from pipelines.batch.outcome_table import ScoredTable
from pipelines.store.features import FeaturesArtefact

MAX_ROWS, MAX_CHARS = 50, 200  # rows, and characters of a text


def kept_wrong(scored: ScoredTable, policy: Policy, outcomes: Path, features: FeaturesArtefact) -> dict[str, Any]:
    """How many measured rows are kept and wrong, and the rows among them that the gate is surest of.

    `outcomes` is the file that `scored` was made of. Of each row there are id, beginning of the text, label, and the
    answers of both models; None stands for no answer, and for one that is no label. Rows that came from the log are
    shown without text, since it may have to be forgotten.
    """
    measured_N = np.flatnonzero(scored.mask(scored.measured))
    rows = scored.table.select(measured_N)
    wrong_N = np.flatnonzero(policy.keep(rows.score, rows.task) & ~rows.small_correct)
    shown_N = wrong_N[np.argsort(-rows.score[wrong_N], kind="stable")[:MAX_ROWS]]
    ids = ds.dataset(outcomes).take(measured_N[shown_N], columns=["id"])["id"].to_pylist()
    texts = _texts(features, scored.measured, ids, set(rows.task[shown_N]))
    answers = (*features.names.answers, None)  # -1 is no answer
    return {
        "num_rows": len(wrong_N),
        "rows": [
            {
                "id": name,
                "text": texts.get(name, ""),
                "label": answers[rows.label[row]],
                "small": answers[rows.small_label[row]],
                "large": answers[rows.none_label[row]],
            }
            for name, row in zip(ids, shown_N, strict=True)
        ],
    }


def _texts(features: FeaturesArtefact, split: Split, ids: list[str], tasks: set[str]) -> dict[str, str]:
    """The beginnings of the texts of rows of a split, by id, read shard by shard."""
    sequence, texts_by_id = features.sequence, dict[str, str]()
    where = pc.field("id").isin(ids)
    for number, task in enumerate(features.names.tasks):
        if task not in tasks or task in sequence.grown_tasks:
            continue
        shards = sequence.shards(number)
        for shard in features.holding(number, features.stored_split(number, split)):
            rows = read_table(sequence.readable(shards[shard].name), columns=["id", "text"], where=where)
            texts = (" ".join(text[: 4 * MAX_CHARS].split()) for text in rows["text"].to_pylist())
            texts_by_id |= zip(rows["id"].to_pylist(), (_beginning(text) for text in texts), strict=True)
    return texts_by_id


def _beginning(text: str) -> str:
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"
