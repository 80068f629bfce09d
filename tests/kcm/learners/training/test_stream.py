"""Rows of a task are read by row group from Parquet, as they were written."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.errors import DataError
from kcm.inputs.labels import UNLABELLED
from kcm.inputs.vectors import list_column
from kcm.learners.ranks import Ranks
from kcm.learners.training.sequence import SequenceLabels
from kcm.learners.training.stream import ParquetRows, shares
from kcm.tasks.shards import GROUP_ROWS


def write_task(folder, num_rows: int, *, shuffled_from: int | None = None):
    rng = np.random.default_rng(0)
    features, large = (
        rng.normal(size=(num_rows, 4)).astype(np.float32),
        rng.dirichlet([1, 1], num_rows).astype(np.float32),
    )
    ids = [f"row-{n}" for n in range(num_rows)]
    splits = ["train"] * (num_rows - 10) + ["test"] * 10
    columns = {"id": ids, "split": splits, "label": rng.integers(0, 2, num_rows), "features": list_column(features)}
    pq.write_table(pa.table(columns), folder / "features.parquet", row_group_size=GROUP_ROWS)
    outcome_ids = ids if shuffled_from is None else [*ids[:shuffled_from], *ids[shuffled_from:][::-1]]
    large_labels = large.argmax(1)
    answers = large.copy()
    answers[:2] = np.nan  # the first row has only a label, the second no answer at all
    large[0], large[1], large_labels[1] = np.eye(2)[large_labels[0]], np.nan, -1
    columns_of_answers = {"large_label": large_labels, "large_probabilities": list_column(answers)}
    outcomes = pa.table({"id": outcome_ids} | columns_of_answers)
    pq.write_table(outcomes, folder / "outcomes.parquet", row_group_size=GROUP_ROWS)
    return features, large, columns["label"]


def test_rows_read_by_index_are_the_rows_that_were_written(tmp_path) -> None:
    features, large, labels = write_task(tmp_path, 2500)
    rows = ParquetRows("task", [tmp_path / "features.parquet"], [tmp_path / "outcomes.parquet"])
    assert (rows.num_rows("train"), rows.num_rows("test"), rows.num_rows("validate")) == (2490, 10, 0)
    positions = torch.tensor([2000, 3, 1024, 1023, 2000, 0, 1])
    batch = rows.take("train", positions)
    np.testing.assert_array_equal(batch.features.numpy(), features[positions])
    np.testing.assert_array_equal(batch.large_probabilities.numpy(), large[positions])
    np.testing.assert_array_equal(batch.labels.numpy(), labels[positions])
    np.testing.assert_array_equal(rows.take("test", torch.tensor([9])).features.numpy(), features[-1:])
    assert rows.ids_and_labels("test", 0, 2) == (["row-2490", "row-2491"], labels[2490:2492].tolist())
    assert rows.label_counts("test") == dict(zip(*np.unique(labels[-10:], return_counts=True), strict=True))


def test_outcomes_of_other_rows_are_refused(tmp_path) -> None:
    write_task(tmp_path, 100, shuffled_from=0)
    with pytest.raises(DataError, match="different rows"):
        ParquetRows("task", [tmp_path / "features.parquet"], [tmp_path / "outcomes.parquet"]).read("train", 0, 1)


def test_shares_hold_every_row_once_with_equal_length(large_tasks) -> None:
    parts = [list(shares(large_tasks[0], "test", Ranks(rank, 3), size=50)) for rank in range(3)]  # of 200 rows
    assert [[len(batch) for batch in mine] for mine in parts] == [[50, 17]] * 3
    rows = torch.cat([batch.features[batch.weights > 0] for mine in parts for batch in mine])
    assert torch.equal(rows, large_tasks[0].read("test", 0, 200).features)


class Task:
    """A task whose train rows have these labels."""

    name = "task"

    def __init__(self, *labels: int) -> None:
        self._labels = labels

    def label_counts(self, split: str) -> Mapping[int, int]:
        return dict.fromkeys(self._labels, 3)


LABELS = SequenceLabels([Task(1, UNLABELLED), Task(0, 1), Task(3)], 5)  # nobody gives label 2 or 4


def test_a_task_has_labels_of_its_own_and_has_seen_those_before() -> None:
    seen = [LABELS.classes(task, 5).seen_C.nonzero()[:, 0].tolist() for task in range(4)]
    assert seen == [[1], [0, 1], [0, 1, 3], [0, 1, 3]]
    current = [LABELS.classes(task, 5).current_C.nonzero()[:, 0].tolist() for task in range(4)]
    assert current == [[1], [0, 1], [3], []]
    assert LABELS.classes(0, 2).seen_C.tolist() == [False, True]


def test_outputs_grow_to_the_last_label_and_only_new_start() -> None:
    collaborator = Collaborator(3, 5, NetworkConfig(hidden=()), "mlp", 0)
    collaborator.resize(0)
    LABELS.append_outputs(collaborator, 0)
    assert collaborator.num_labels == 2
    known = {name: tensor.clone() for name, tensor in collaborator.state_dict().items()}
    with torch.no_grad():
        for parameter in collaborator.parameters():
            parameter.add_(1.0)
    moved = {name: tensor.clone() for name, tensor in collaborator.state_dict().items()}
    LABELS.append_outputs(collaborator, 1)  # label 0 is new, label 1 is not
    for name in collaborator.output_names:
        now = collaborator.state_dict()[name]
        assert torch.equal(now[0], known[name][0])
        assert torch.equal(now[1], moved[name][1])
    LABELS.append_outputs(collaborator, 2)
    assert collaborator.num_labels == 4
