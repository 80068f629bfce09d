"""Who asks for deletion is told which versions learned the item, and where its rows still lie."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kcm.errors import ArtefactError
from kcm.inputs.content import Content
from kcm.tasks.units import unit_digest, unit_of
from pipelines.loop.remembered import remembered

KEY = b"k" * 32


def sequence(folder: str, *tasks: list[tuple[str, str]]) -> SimpleNamespace:
    """Rows of (text, group) by task; those of the last task came from the log."""
    names = [f"task{number}" for number in range(len(tasks))]

    def rows(number: int) -> pa.Table:
        text, group = zip(*tasks[number], strict=True)
        ids = [f"{number}/{place}" for place in range(len(text))]
        columns = {"id": ids, "text": text, "image": [b""] * len(text), "group": group, "split": ["train"] * len(text)}
        return pa.table(columns)

    named = SimpleNamespace(tasks=tuple(names))
    return SimpleNamespace(folder=Path(folder), names=named, task=rows, grown_tasks=frozenset(names[-1:]))


class Store:
    def __init__(self, sequences: dict[str, SimpleNamespace], windows: list[Path]) -> None:
        self._sequences, self._windows = sequences, windows

    def named(self, stage: str, bundle: str) -> Any:
        if bundle not in self._sequences:
            raise ArtefactError("it is gone", where=bundle)
        features = SimpleNamespace(sequence=self._sequences[bundle])
        return SimpleNamespace(as_a=lambda _: SimpleNamespace(source=lambda *_: features))

    def finished(self, stage: str) -> list[Any]:
        return [SimpleNamespace(folder=folder) for folder in self._windows] if stage == "window" else []


def test_versions_and_folders_that_hold_a_forgotten_unit_are_told(tmp_path: Path) -> None:
    told, other = (unit_of(unit_digest(Content(text)), KEY) for text in ("my secret", "something else"))
    for name, units in (("one", [other, None]), ("two", [told, other])):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"unit": pa.array(units, pa.string())}), tmp_path / name / "window.parquet")
    first = sequence("/first", [("a film", "")], [("", other)])
    second = sequence("/second", [("a film", ""), ("my secret", "")], [("", other)])
    third = sequence("/third", [("a film", "")], [("", told)])
    champions = [SimpleNamespace(version=f"films/{n}", bundle=f"b{n}") for n in (1, 2, 9)]
    turns = [{"candidate": None}, {"candidate": {"version": "films/3", "bundle": "b3"}}]
    state: Any = SimpleNamespace(
        store=Store({"b1": first, "b2": second, "b3": third}, [tmp_path / "one", tmp_path / "two"]),
        champions=SimpleNamespace(pointer=SimpleNamespace(history=lambda: champions)),
        attempts=SimpleNamespace(turns=lambda: turns),
    )
    found = remembered(state, KEY, {told})
    assert found.versions == ("films/2", "films/3")
    assert found.unreadable == ("films/9",)
    assert found.folders == (Path("/second"), Path("/third"), tmp_path / "two")
    assert remembered(state, KEY, {"unknown"}).folders == ()
