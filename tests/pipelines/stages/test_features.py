"""The encoder that actors use is chosen once, and what computed the features is recorded with them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from kcm.config import parse_config
from kcm.encoders.pixels import PixelsConfig
from kcm.encoders.text import TextEncoderConfig
from kcm.errors import ConfigError
from kcm.parquet import write_table
from pipelines.config import RunConfig
from pipelines.stages import features
from pipelines.stages.encoders import ComparedArtefact, Comparison, cheapest
from pipelines.stages.features import Encoding, Features
from pipelines.store.features import SECONDS, FeaturesArtefact


def written_by(encoder, folder, monkeypatch) -> tuple[FeaturesArtefact, list]:
    """The artefact that an encoder's rows make, and what the actors were given."""
    given = []

    def encode_shards(context, encoder, sources, folder, scratch, bar):
        given.append(encoder)
        return 7

    monkeypatch.setattr(features, "encode_shards", encode_shards)
    sequence = SimpleNamespace(all_shards={}, names=SimpleNamespace(tasks=()))
    context = SimpleNamespace(assets_path=folder, store=SimpleNamespace(storage=None))
    attempt = SimpleNamespace(context=context, folder=folder, scratch=folder, bar=None)
    Encoding(encoder=encoder, identity="i", device="cpu").write(attempt, sequence)
    return FeaturesArtefact("features", folder.name, folder), given


@pytest.mark.parametrize("faster", ["torch", "onnx"])
def test_auto_is_resolved_once_for_all_actors_and_recorded(faster, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(TextEncoderConfig, "resolved", lambda self, assets_dir, device: self.in_runtime(faster))
    artefact, given = written_by(TextEncoderConfig(model="m"), tmp_path, monkeypatch)
    assert [encoder.in_use for encoder in given] == [faster]
    assert artefact.runtime == faster


def test_texts_that_are_read_in_part_are_told(tmp_path, monkeypatch) -> None:
    artefact, _ = written_by(PixelsConfig(), tmp_path, monkeypatch)
    said: list[str] = []
    context = SimpleNamespace(reporter=SimpleNamespace(say=said.append))
    Features.model_construct().publish(artefact, context)
    assert artefact.num_cut == 7
    assert "encoder: of 7 texts the end is not read" in said[0]


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

    monkeypatch.setattr("pipelines.stages.encoders.encoded", encoded)
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


@pytest.mark.parametrize(("wrong", "chosen"), [(12, 0), (50, 1)], ids=["within an error", "far behind"])
def test_a_cheap_one_is_taken_within_a_standard_error_alone(wrong: int, chosen: int) -> None:
    best = np.ones(400, dtype=bool)
    best[:20] = False
    cheap = best.copy()
    cheap[:10] = True
    cheap[100 : 100 + wrong] = False
    assert cheapest([cheap, best], [0.1, 1.0]) == chosen


VECTORS = {"kind": "precomputed", "column": "embedding"}
TEXT = {"kind": "text", "model": "any"}


def check(encoder: object, large: object) -> None:
    source = {"kind": "files", "path": "rows.parquet"}
    config = parse_config(RunConfig, {"name": "n", "tasks": {"source": source}, "encoder": encoder, "large": large})
    Features.of(config).check()


@pytest.mark.parametrize("backbone", [VECTORS, TEXT])
def test_vectors_go_with_a_large_model_over_the_same_ones_or_over_texts(backbone) -> None:
    check(VECTORS, {"adapter": "classifier", "encoder": backbone})
    check(VECTORS, {"adapter": "recorded", "path": "answers.parquet"})


@pytest.mark.parametrize("encoder", [VECTORS, TEXT])
def test_other_vectors_are_refused(encoder) -> None:
    other = {"kind": "precomputed", "columns": ["f_*"]}
    with pytest.raises(ConfigError, match=r"the large model reads the vectors f_\*, which are not the encoder's"):
        check(encoder, {"adapter": "classifier", "encoder": other})
