"""The choice between encoders: the cheapest within one standard error of the best, on train rows left out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from kcm.encoders.pixels import PixelsConfig
from kcm.errors import DataError
from kcm.parquet import write_table
from pipelines.stages import encoders
from pipelines.stages.encoders import ComparedArtefact, Comparison, cheapest
from pipelines.store.features import SECONDS

WEAK, FAST, SLOW = (PixelsConfig(side=side) for side in (1, 2, 3))
COST = {1: 0.001, 2: 0.002, 3: 0.02}


def sequence_of(folder: Path, labels: np.ndarray) -> SimpleNamespace:
    """Train rows in shards of a hundred, whose picture is their number."""
    rows = pa.table(
        {
            "id": [str(row) for row in range(len(labels))],
            "label": labels,
            "split": ["train"] * len(labels),
            "group": pa.array([None] * len(labels), pa.string()),
        }
    )
    paths = {f"{start}.parquet": folder / f"{start}.parquet" for start in range(0, len(labels), 100)}
    for number, path in enumerate(paths.values()):
        write_table(rows.slice(100 * number, 100), path)
    return SimpleNamespace(all_shards=paths)


def compared(sequence: SimpleNamespace, features: dict[int, np.ndarray], folder: Path, monkeypatch) -> ComparedArtefact:
    """The comparison of encoders that say `features` [N, D] of all rows, by the side of their pictures."""
    seen = []

    def encoded(context, encoder, rows, scratch, bar):
        seen.append(rows["id"].to_pylist())
        mine = features[encoder.side][[int(row) for row in seen[-1]]].astype(np.float32)
        values = pa.FixedSizeListArray.from_arrays(mine.ravel(), mine.shape[1])
        return pa.table({"features": values, SECONDS: [COST[encoder.side]] * len(rows)})

    monkeypatch.setattr(encoders, "encoded", encoded)
    candidates = tuple(each for each in (WEAK, FAST, SLOW) if each.side in features)
    plan = Comparison(identities=(), device="cpu", seed=0, candidates=candidates)
    context = SimpleNamespace(assets_path=folder, store=SimpleNamespace(storage=SimpleNamespace(readable=Path)))
    plan.write(SimpleNamespace(context=context, folder=folder, scratch=folder, bar=None), sequence)
    assert all(ids == seen[0] for ids in seen)
    return ComparedArtefact("encoders", folder.name, folder)


def rows_of(count: int) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Labels of four classes, and what encoders see of them: nothing, and the class with noise."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, count)
    seen = 4 * np.eye(4)[labels] + random.normal(size=(count, 4))
    return labels, {1: random.normal(size=(count, 4)), 2: seen, 3: seen + 0.01 * random.normal(size=(count, 4))}


def test_the_cheapest_of_those_as_good_as_the_best_is_chosen_by_left_out_rows(tmp_path, monkeypatch) -> None:
    labels, features = rows_of(600)
    found = compared(sequence_of(tmp_path, labels), features, tmp_path, monkeypatch)
    assert found.found["chosen"] == 1
    weak, fast, slow = (each["accuracy"] for each in found.found["candidates"])
    assert weak < 0.4
    assert 0.9 < fast < 1
    assert slow == pytest.approx(fast, abs=0.01)
    lines = list(found.lines())
    assert lines[1].endswith("at 2.0 ms a row and is taken")
    assert "600 train rows left out" in lines[0]


def test_one_label_is_too_few(tmp_path, monkeypatch) -> None:
    _, features = rows_of(200)
    with pytest.raises(DataError, match="too few train rows to compare encoders"):
        compared(sequence_of(tmp_path, np.zeros(200, int)), features, tmp_path, monkeypatch)


@pytest.mark.parametrize(("wrong", "chosen"), [(12, 0), (50, 1)], ids=["within an error", "far behind"])
def test_a_cheap_one_is_taken_within_a_standard_error_alone(wrong: int, chosen: int) -> None:
    best = np.ones(400, dtype=bool)
    best[:20] = False
    cheap = best.copy()
    cheap[:10] = True
    cheap[100 : 100 + wrong] = False
    assert cheapest([cheap, best], [0.1, 1.0]) == chosen
