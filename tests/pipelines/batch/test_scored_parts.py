"""Parts of the outcome table that other processes read are those of one process, and only their rows are fetched."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcm.cascade.gate import Gate
from kcm.cascade.outcome_rows import SPLITS
from pipelines.batch import outcome_table
from pipelines.batch.outcome_table import drawn, scored_parts
from pipelines.store.artefact import ArtefactStore
from tests.pipelines.made_parts import SIZES, Fetched, logits, parts_here, written

GATE = Gate()


@pytest.fixture(autouse=True)
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome_table, "logits", logits)


def test_parts_are_those_of_one_process_in_their_order(place: str) -> None:
    given: Any = (*written(ArtefactStore(place)), SPLITS)
    collaborator: Any = None
    parts = list(scored_parts(collaborator, GATE, *given))
    expected = list(parts_here(collaborator, *given))
    assert [part.table.split[0] for part in parts] == ["validate", "certify", "test", "test"]
    assert [len(part.table) for part in parts] == [len(part.table) for part in expected]
    for part, other in zip(parts, expected, strict=True):
        assert part.table.id.tolist() == other.table.id.tolist()
        np.testing.assert_array_equal(part.table.label, other.table.label)
        np.testing.assert_array_equal(part.scores(GATE), other.scores(GATE))
        np.testing.assert_array_equal(part.seconds_N, other.seconds_N)
        assert len(part.features_ND) == 0


def test_features_are_drawn_by_id_hash_in_any_part(tmp_path: Path) -> None:
    """Promise: features come with the rows that a hash of the id draws whatever part they lie in."""
    given: Any = (*written(ArtefactStore(tmp_path)), SPLITS)
    collaborator: Any = None
    whole = list(parts_here(collaborator, *given))
    id_N = np.concatenate([part.table.id for part in whole])
    features_ND = np.concatenate([part.features_ND for part in whole])
    order_N = np.random.default_rng(0).permutation(len(id_N))  # of rows that are drawn in one go
    expected_N = np.sort(order_N[drawn(id_N[order_N], 0.3)])
    shown = [part.features_ND for part in scored_parts(collaborator, GATE, *given, shown=0.3)]
    np.testing.assert_array_equal(np.concatenate(shown), features_ND[expected_N])
    assert 0.25 < len(expected_N) / len(id_N) < 0.35


def test_only_the_row_groups_of_a_split_are_fetched(node_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtefactStore(node_bucket)
    features, outcomes = written(store)
    sizes = [stat.size for stat in store.storage.files.list("artefacts") if stat.name.endswith(".parquet")]
    features.holding(0, "validate")  # the index of the rows is read once
    fetched = Fetched(monkeypatch)
    collaborator: Any = None
    (part,) = scored_parts(collaborator, GATE, features, outcomes, ["validate"])
    assert len(part.table) == SIZES["validate"]
    assert fetched.shards == []
    assert fetched.ranges < sum(sizes) / 4
