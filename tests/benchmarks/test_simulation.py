"""The simulation of the loop: what its traffic is, and how its large model answers from the table."""

from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.simulation.played import PlayedConfig
from benchmarks.simulation.scenario import TURNS, script_of
from kcm.inputs.content import Content
from kcm.large import Item
from kcm.parquet import write_table
from kcm.tasks.rows import SourceRow
from kcm.tasks.units import content_key

ROWS = {label: [SourceRow(f"{label} {n}", f"{label} {n}", label) for n in range(40)] for label in "abcdef"}
TEXTS = [f"text {number}" for number in range(300)]
TRUTH = ["pay", "send", "refund"] * 100


def labels(rows: list[SourceRow]) -> set[str]:
    return {str(row.label) for row in rows}


def test_wave_comes_in_its_periods_and_no_row_twice() -> None:
    """Promise: a wave comes in its own period and in all later ones, and no row is sent twice."""
    script = script_of(ROWS, [["e"], ["f"]], first=0.5, seed=0)
    assert labels(script.first) == set("abcd")
    assert [labels(period) & set("ef") for period in script.periods] == [{"e"}, {"e"}, {"e", "f"}, {"e", "f"}]
    assert len(script.periods) == 2 * TURNS
    sent = [row.id for rows in (script.first, *script.periods) for row in rows]
    assert sorted(sent) == sorted(str(row.id) for rows in ROWS.values() for row in rows)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    recorded = pa.array([None] * 297 + ["send", "pay", "lost"], pa.string())
    columns = {"key": [content_key(Content(text)) for text in TEXTS], "label": TRUTH, "said": recorded}
    write_table(pa.table(columns), tmp_path / "truth.parquet")
    return tmp_path / "truth.parquet"


def answers(table: Path, listed: list[str], wrong: float = 0.0) -> list[str]:
    model = PlayedConfig(path=table, wrong=wrong).build(listed, table.parent)
    return [listed[a.label] for a in model.answer([Item("", Content(text)) for text in TEXTS]) if a.label is not None]


def test_large_model_is_right_within_its_list(table: Path) -> None:
    """Promise: it is right about listed classes, gives one label to all others, and repeats recorded answers."""
    short = list(zip(answers(table, ["pay", "send"])[:297], TRUTH, strict=False))
    assert all(answer == truth for answer, truth in short if truth != "refund")
    assert len({answer for answer, truth in short if truth == "refund"}) == 1
    assert answers(table, ["pay", "send", "refund"]) == [*TRUTH[:297], "send", "pay", "refund"]


def test_errors_have_the_given_rate_and_the_same_rows(table: Path) -> None:
    """Promise: it errs at the given rate, on the same rows each time."""
    erring = answers(table, ["pay", "send", "refund"], wrong=0.1)
    assert erring == answers(table, ["pay", "send", "refund"], wrong=0.1)
    assert 10 <= sum(answer != truth for answer, truth in zip(erring[:297], TRUTH, strict=False)) <= 55
