"""Part of the stage `features`: of several encoders the cheapest that is as good as the best, on a sample of the rows.

Shapes: N rows of the sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kcm.encoders import EncoderConfig
from kcm.errors import DataError
from pipelines.batch.encoding import encoded
from pipelines.batch.preview import SAMPLE, right_left_out, sampled
from pipelines.context import Attempt, Context
from pipelines.stages.stage import Plan
from pipelines.store.artefact import Artefact, Recipe, write_json
from pipelines.store.features import SECONDS, feature_matrix
from pipelines.store.sequence import SequenceArtefact

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
        rows = sampled(list(sequence.all_shards.values()), None, SAMPLE, self.seed, context.store.storage.readable)
        right, seconds = [], []
        for number, candidate in enumerate(self.candidates):
            encoder = candidate.resolved(context.assets_path, self.device)
            made = encoded(context, encoder, rows, scratch=attempt.scratch / str(number), bar=attempt.bar)
            found = right_left_out(feature_matrix(made), rows)
            if found is None:
                raise DataError("too few train rows to compare encoders", where="encoder", hint="Name one encoder")
            right.append(found)
            seconds.append(float(np.median(made[SECONDS].to_numpy())))
        candidates = [
            {"name": each.name, "accuracy": float(mine.mean()), "milliseconds": 1000 * cost}
            for each, mine, cost in zip(self.candidates, right, seconds, strict=True)
        ]
        chosen = cheapest(right, seconds)
        write_json(attempt.folder / _FOUND, {"rows": len(rows), "candidates": candidates, "chosen": chosen})


def cheapest(right: list[NDArray[np.bool_]], seconds: list[float]) -> int:
    """The candidate with the least seconds whose accuracy is within one standard error of the best.

    `right` says for each which of the same rows it answers right, [N]; the error is that of their difference.
    """
    best_N = max(right, key=lambda mine: mine.mean()).astype(float)
    behind = [best_N - mine for mine in right]
    near = [number for number, gap_N in enumerate(behind) if gap_N.mean() <= gap_N.std() / np.sqrt(len(gap_N))]
    return min(near, key=lambda number: seconds[number])
