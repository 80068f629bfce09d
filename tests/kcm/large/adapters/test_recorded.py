"""Recorded answers come back by id; a table that cannot be right is refused."""

import numpy as np
import pandas as pd
import pytest

from kcm.errors import DataError
from kcm.inputs.content import Content
from kcm.large import Item
from kcm.large.adapters.recorded import RecordedConfig, RecordedModel

LABELS = ("no", "yes")
ROWS = [
    {
        "id": "1",
        "label": "yes",
        "probability:no": 0.2,
        "probability:yes": 0.8,
        "seconds": 1.5,
        "tokens": 12,
        "currency": 0.01,
    },
    {"id": "2", "label": None, "error": "time-out"},
    {"id": "3", "label": "no", "probability:no": 1.0, "probability:yes": 0.0},
]


@pytest.fixture
def write(tmp_path):
    def write_table(rows, kind="csv"):
        path = tmp_path / f"answers.{kind}"
        frame = pd.DataFrame(rows)
        frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
        return path

    return write_table


def load(path, **columns) -> RecordedModel:
    model = RecordedModel(RecordedConfig(path=str(path), **columns), LABELS)
    model.answer([])  # reads the table
    return model


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_answers_come_by_id_with_all_their_fields(kind, write):
    """Promise: answers come back by id with probabilities cost and error."""
    third, first, second = load(write(ROWS, kind)).answer([Item(row_id, Content()) for row_id in "312"])
    assert (first.label, first.error) == (1, None)
    np.testing.assert_allclose(first.probabilities, [0.2, 0.8])
    assert (first.cost.seconds, first.cost.tokens, first.cost.currency) == (1.5, 12, 0.01)
    assert (second.label, second.probabilities, second.error) == (None, None, "time-out")
    assert (third.label, third.cost.tokens) == (0, 0)


def test_labels_alone_are_enough(write):
    answers = load(write([{"key": 7, "said": "no"}, {"key": 8, "said": ""}]), id_column="key", label_column="said")
    answered, silent = answers.answer([Item("7", Content()), Item("8", Content())])
    assert (answered.label, answered.probabilities) == (0, None)
    assert silent.error == "no label was recorded"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "1", "lable": "yes"}], r"no column 'label'.*mean 'lable'"),
        ([{"id": "1", "label": "yes"}, {"id": "1", "label": "no"}], "two answers for item '1'"),
        ([{"id": "1", "label": "yess"}], "label 'yess' is not in the label list"),
        ([{"id": "1", "label": "yes", "probability:yes": 1.0}], "no column 'probability:no'"),
        ([{"id": "1", "label": "yes", "probability:yes": 0.5, "probability:no": 0.1}], "sum to 0.6, not to 1"),
        ([{"id": "1", "label": "yes", "seconds": -1.0}], r"seconds = '-1.0' is not a number from 0 .*item '1'"),
        ([{"id": "1", "label": "yes", "currency": "inf"}], "currency = 'inf' is not a number from 0"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(rows, message, write):
    with pytest.raises(DataError, match=message):
        load(write(rows))


def test_another_table_is_another_model(write):
    def identity(rows):
        path = write(rows)
        return RecordedConfig(path=str(path)).identity(LABELS, path.parent)

    assert identity(ROWS) == identity(ROWS) != identity(ROWS[:2])
