"""What a simulation sends: late labels never before their wave, every row once."""

from kcm.tasks.rows import SourceRow
from pipelines.loop.simulation.scenario import TURNS, script_of

ROWS = {label: [SourceRow(f"{label} {n}", f"{label} {n}", label) for n in range(40)] for label in "abcdef"}


def labels(rows: list[SourceRow]) -> set[str]:
    return {str(row.label) for row in rows}


def test_wave_comes_in_its_periods_and_no_row_twice() -> None:
    """Promise: a wave comes in its own period and in all later ones and no row is sent twice."""
    script = script_of(ROWS, [["e"], ["f"]], first=0.5, seed=0)
    assert labels(script.first) == set("abcd")
    assert [labels(period) & set("ef") for period in script.periods] == [{"e"}, {"e"}, {"e", "f"}, {"e", "f"}]
    assert len(script.periods) == 2 * TURNS
    sent = [row.id for rows in (script.first, *script.periods) for row in rows]
    assert sorted(sent) == sorted(str(row.id) for rows in ROWS.values() for row in rows)
