"""What encoders are worth on a sample of the train rows: said before anything is trained, and chosen by.

The measure is ridge regression on some train rows, each left out. Labels that were mixed up, or an encoder that does
not see what they mean, show here. Of several encoders the cheapest is taken that is as good as the best. No row that
tests or certifies is looked at.

Shapes: N rows of the sample, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from kcm.closed_form.left_out import ridge_left_out
from kcm.encoders import EncoderConfig
from kcm.errors import DataError
from kcm.metrics.intervals import Units
from kcm.parquet import open_file, sound
from kcm.tasks.hashing import draws
from pipelines.batch.encoding import encoded
from pipelines.context import Attempt, Context
from pipelines.stages.stage import Plan
from pipelines.store.artefact import Artefact, Recipe, write_json
from pipelines.store.features import SECONDS, feature_matrix
from pipelines.store.sequence import SequenceArtefact

Preview: TypeAlias = dict[str, tuple[int, int]]  # by task: train rows left out, and those that are answered right

SAMPLE = 1000  # rows that are looked at, of all tasks: an accuracy of 90% is known to a point
_READ = 16_384  # rows that are read for them, by the driver; of more, row groups at equal distances


def preview(
    shards: Mapping[str, Sequence[Path]], seed: int, readable: Callable[[Path], Path | BinaryIO] = Path
) -> Preview:
    """How many train rows of each task were left out, and how many of them answered right.

    `shards` are the files of each task, `readable` what they are read from. Empty where there is nothing to compute it
    from.
    """
    columns, count = ("id", "split", "label", "group", "features"), math.ceil(SAMPLE / len(shards))
    parts = [sampled(paths, columns, count, seed, readable) for paths in shards.values()]
    rows = pa.concat_tables(parts)
    right_N = right_left_out(feature_matrix(rows), rows)
    if right_N is None:
        return {}
    by_task = np.split(right_N, np.cumsum([len(part) for part in parts])[:-1])
    return {task: (len(mine), int(mine.sum())) for task, mine in zip(shards, by_task, strict=True) if len(mine)}


def preview_lines(found: Preview, shown: int = 8) -> Iterator[str]:
    """The same in lines for a person."""
    if not found:
        return
    num_rows, num_right = (sum(counts) for counts in zip(*found.values(), strict=True))
    yield (
        f"nothing is trained yet: ridge regression on the features answers {num_right / num_rows:.1%} of"
        f" {num_rows:,} train rows right when they are left out"
    )
    if len(found) > 1:
        parts = [f"{task} {right / rows:.1%}" for task, (rows, right) in list(found.items())[:shown]]
        more = f" and {len(found) - shown} more tasks" if len(found) > shown else ""
        yield f"  {', '.join(parts)}{more}"


def sampled(
    shards: Sequence[Path],
    columns: Sequence[str] | None,
    count: int,
    seed: int,
    readable: Callable[[Path], Path | BinaryIO],
) -> pa.Table:
    """Up to `count` labelled train rows, those whose ids draw the lowest numbers; all columns for None."""
    files = {path: open_file(readable(path), pre_buffer=True) for path in shards}
    step = math.ceil(sum(file.metadata.num_rows for file in files.values()) / _READ)
    rows: list[pa.Table] = []
    for path, file in files.items():
        for group in range(0, file.num_row_groups, step):
            with sound(path):
                read = file.read_row_group(group, columns=columns)
            rows.append(read.filter(pc.and_(pc.equal(read["split"], "train"), pc.greater_equal(read["label"], 0))))
            sample = pa.concat_tables(rows, promote_options="default")  # a task without pictures lacks their column
            drawn_N = draws(seed, "preview", sample["id"].to_pylist())
            rows = [sample.take(np.sort(np.argsort(drawn_N, kind="stable")[:count]))]
    return rows[0]


def right_left_out(features_ND: NDArray[np.float32], rows: pa.Table) -> NDArray[np.bool_] | None:
    """Which rows ridge regression answers right when their unit is left out, [N].

    None where there are not two labels and two units.
    """
    labels, label_N = np.unique(rows["label"].to_numpy(), return_inverse=True)
    groups = rows["group"].to_pylist() if "group" in rows.column_names else [None] * len(rows)
    names = zip(groups, rows["id"].to_pylist(), strict=True)
    units = Units(np.array([group or row for group, row in names], dtype=object), len(rows))
    if len(labels) < 2 or units.count < 2:
        return None
    found = ridge_left_out(features_ND.astype(np.float64).__getitem__, np.eye(len(labels))[label_N], units)
    return np.asarray(found.left_out.argmax(1) == label_N)


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
