"""Ranks sketch rows of their own; merged, the sketches are that of all rows, for any number of ranks."""

from __future__ import annotations

import pytest

from kcm.inputs.labels import UNLABELLED
from kcm.learners import ReplayConfig
from kcm.learners.ranks import Ranks
from kcm.learners.training import remembered
from kcm.learners.training.remembered import sketch


class Labels:
    """The ids and labels of 5,300 train rows, every seventh without one; and how many were read."""

    name, num_read = "labels", 0

    def num_rows(self, split: str) -> int:
        return 5300

    def ids_and_labels(self, split: str, start: int, stop: int) -> tuple[list[str], list[int]]:
        self.num_read += stop - start
        rows = range(start, stop)
        return [f"row-{row}" for row in rows], [UNLABELLED if row % 7 == 0 else row % 5 for row in rows]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_ROWS_SKETCHED", 512)


@pytest.mark.parametrize("world_size", [2, 3, 20])
def test_sketches_merge_into_the_sketch_of_all_rows(world_size: int) -> None:
    learner = ReplayConfig(memory=40).build(0)
    alone_ids, alone_positions = sketch(learner, Labels(), 0, Ranks())
    assert len(alone_ids) == 40
    assert alone_ids == [f"row-{position}" for position in alone_positions]
    parts = [sketch(learner, Labels(), 0, Ranks(rank, world_size)) for rank in range(world_size)]
    together = [(row_id, position) for part in parts for row_id, position in zip(*part, strict=True)]
    labels = [position % 5 for _, position in together]
    chosen = learner.candidates([row_id for row_id, _ in together], labels, 0)
    assert {together[index][0] for index in chosen} == set(alone_ids)
    assert not any(position % 7 == 0 for _, position in together)


def test_a_rank_looks_at_the_ids_of_its_own_rows_alone() -> None:
    learner, counts = ReplayConfig(memory=40).build(0), []
    for rank in range(3):
        labels = Labels()
        sketch(learner, labels, 0, Ranks(rank, 3))
        counts.append(labels.num_read)
    assert counts == [2048, 1716, 1536]


def test_a_rank_without_rows_offers_none() -> None:
    assert sketch(ReplayConfig(memory=40).build(0), Labels(), 0, Ranks(15, 20)) == ([], [])
