"""Part of the stage `features`: of several encoders the cheapest that is as good as the best, on a sample of the rows.

Shapes: N rows of the sample, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from kcm.closed_form.left_out import ridge_left_out
from kcm.encoders import EncoderConfig
from kcm.errors import DataError
from kcm.metrics.intervals import Units
from kcm.parquet import read_table
from kcm.tasks.hashing import draws
from pipelines.batch.encoding import encoded
from pipelines.context import Attempt, Context
from pipelines.stages.stage import Plan
from pipelines.store.artefact import Artefact, Recipe, write_json
from pipelines.store.features import SECONDS, feature_matrix
from pipelines.store.sequence import SequenceArtefact

SAMPLE = 1000  # rows that every candidate encodes: accuracies of 90% are known to a point
_FOUND = "encoders.json"


class ComparedArtefact(Artefact):
    """What every candidate is worth on the sample, and which was chosen."""

    kind = "encoders"

    @cached_property
    def found(self) -> dict[str, Any]:
        """`rows`; by candidate its `name`, `accuracy` and `milliseconds` a row; and the number of the `chosen` one."""
        return cast(dict[str, Any], self.json(_FOUND))

    def lines(self) -> Iterator[str]:
        """The same for a person."""
        for number, each in enumerate(self.found["candidates"]):
            chosen = " and is taken" if number == self.found["chosen"] else ""
            yield (
                f"encoder {each['name']} answers {each['accuracy']:.1%} of {self.found['rows']:,} train rows left out"
                f" right, at {each['milliseconds']:.1f} ms a row{chosen}"
            )


class Comparison(Plan):
    """The candidates with their identities, and the kind of device that they run on."""

    identities: tuple[str, ...]
    device: str
    seed: int
    candidates: tuple[EncoderConfig, ...] = Field(exclude=True)

    @classmethod
    def made(
        cls, candidates: tuple[EncoderConfig, ...], sequence: SequenceArtefact, seed: int, context: Context
    ) -> ComparedArtefact:
        """What the candidates are worth on the rows of a sequence, on this machine."""
        identities = tuple(each.identity(context.assets_path) for each in candidates)
        plan = cls(identities=identities, device=context.cluster.device, seed=seed, candidates=candidates)
        recipe = Recipe("encoders", 1, plan.section(), (sequence,))
        return context.build(recipe, partial(plan.write, sequence=sequence)).as_a(ComparedArtefact)

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """Encode the sample by every candidate, and compare.

        DataError where fewer than two labels, or two units, of train rows are there.
        """
        context = attempt.context
        rows = self._sample(sequence)
        label_N = rows["label"].to_numpy()
        names = zip(rows["group"].to_pylist(), rows["id"].to_pylist(), strict=True)
        units = Units(np.array([group or row for group, row in names], dtype=object), len(rows))
        if len(np.unique(label_N)) < 2 or units.count < 2:
            raise DataError("too few train rows to compare encoders", where="encoder", hint="Name one encoder")
        right, seconds = [], []
        for number, candidate in enumerate(self.candidates):
            encoder = candidate.resolved(context.assets_path, self.device)
            made = encoded(context, encoder, rows, scratch=attempt.scratch / str(number), bar=attempt.bar)
            right.append(_right_left_out(feature_matrix(made), label_N, units))
            seconds.append(float(np.median(made[SECONDS].to_numpy())))
        candidates = [
            {"name": each.name, "accuracy": float(mine.mean()), "milliseconds": 1000 * cost}
            for each, mine, cost in zip(self.candidates, right, seconds, strict=True)
        ]
        found = {"rows": len(rows), "candidates": candidates, "chosen": cheapest(right, seconds)}
        write_json(attempt.folder / _FOUND, found)

    def _sample(self, sequence: SequenceArtefact) -> pa.Table:
        """The labelled train rows whose ids draw the lowest numbers; those of one shard are in memory at once."""
        where = (pc.field("split") == "train") & (pc.field("label") >= 0)
        sample: pa.Table | None = None
        for shard in sequence.all_shards.values():
            rows = read_table(sequence.readable(shard.name), where=where)
            rows = rows if sample is None else pa.concat_tables([sample, rows])
            drawn_N = draws(self.seed, "encoders", rows["id"].to_pylist())
            sample = rows.take(np.sort(np.argsort(drawn_N, kind="stable")[:SAMPLE]))
        assert sample is not None
        return sample


def cheapest(right: list[NDArray[np.bool_]], seconds: list[float]) -> int:
    """The candidate with the least seconds whose accuracy is within one standard error of the best.

    `right` says for each which of the same rows it answers right, [N]; the error is that of their difference.
    """
    best_N = max(right, key=lambda mine: mine.mean()).astype(float)
    behind = [best_N - mine for mine in right]
    near = [number for number, gap_N in enumerate(behind) if gap_N.mean() <= gap_N.std() / np.sqrt(len(gap_N))]
    return min(near, key=lambda number: seconds[number])


def _right_left_out(features_ND: NDArray[np.float32], label_N: NDArray[np.int64], units: Units) -> NDArray[np.bool_]:
    """Which rows ridge regression answers right when their unit is left out, [N]."""
    known, label_N = np.unique(label_N, return_inverse=True)
    found = ridge_left_out(features_ND.astype(np.float64), np.eye(len(known))[label_N], units)
    return np.asarray(found.left_out.argmax(1) == label_N)
