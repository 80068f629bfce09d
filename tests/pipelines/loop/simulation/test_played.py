"""A large model that is played from a table answers as a real one with a longer or a shorter list would."""

from pathlib import Path

import pyarrow as pa
import pytest

from kcm.inputs.content import Content
from kcm.large import Item
from kcm.parquet import write_table
from kcm.tasks.units import content_key
from pipelines.loop.simulation.played import PlayedConfig

TEXTS = [f"text {number}" for number in range(300)]
TRUTH = ["pay", "send", "refund"] * 100


@pytest.fixture
def table(tmp_path: Path) -> Path:
    said = pa.array([None] * 297 + ["send", "pay", "lost"], pa.string())
    columns = {"key": [content_key(Content(text)) for text in TEXTS], "label": TRUTH, "said": said}
    write_table(pa.table(columns), tmp_path / "truth.parquet")
    return tmp_path / "truth.parquet"


def answers(table: Path, labels: list[str], wrong: float = 0.0) -> list[str]:
    model = PlayedConfig(path=table, wrong=wrong).build(labels, table.parent)
    given = model.answer([Item("", Content(text)) for text in TEXTS])
    return [labels[answer.label] for answer in given if answer.label is not None]


def test_listed_classes_are_right_and_others_get_one_label(table: Path) -> None:
    """Promise: it is right of what its list holds and says one other label of a class that it does not."""
    found = answers(table, ["pay", "send"])[:297]
    assert all(said == truth for said, truth in zip(found, TRUTH, strict=False) if truth != "refund")
    assert len({said for said, truth in zip(found, TRUTH, strict=False) if truth == "refund"}) == 1
    assert answers(table, ["pay", "send", "refund"])[:297] == TRUTH[:297]


def test_what_is_recorded_is_said_as_far_as_it_is_in_the_list(table: Path) -> None:
    assert answers(table, ["pay", "send", "refund"])[297:] == ["send", "pay", "refund"]


def test_errors_have_the_given_rate_and_the_same_rows(table: Path) -> None:
    """Promise: it errs as often as it is told and again on the same rows."""
    found = answers(table, ["pay", "send", "refund"], wrong=0.1)
    assert found == answers(table, ["pay", "send", "refund"], wrong=0.1)
    assert 10 <= sum(said != truth for said, truth in zip(found[:297], TRUTH, strict=False)) <= 55
