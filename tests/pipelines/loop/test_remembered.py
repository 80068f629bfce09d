"""A deletion lists which versions learned the item, and where its rows still lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.errors import ArtefactError
from pipelines.loop.remembered import remembered

KEY = b"k" * 32


@dataclass(frozen=True)
class Rows:
    """A sequence with the units of its rows."""

    folder: Path
    units: tuple[str, ...]


class Store:
    def __init__(self, sequences: dict[str, Rows], windows: list[Path]) -> None:
        self._sequences, self._windows = sequences, windows

    def named(self, stage: str, bundle: str) -> Any:
        if bundle not in self._sequences:
            raise ArtefactError("it is gone", where=bundle)
        features = SimpleNamespace(sequence=self._sequences[bundle])
        return SimpleNamespace(as_a=lambda _: SimpleNamespace(source=lambda *_: features))

    def finished(self, stage: str) -> list[Any]:
        return [SimpleNamespace(folder=folder) for folder in self._windows] if stage == "window" else []


def test_versions_and_folders_that_hold_a_forgotten_unit_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pipelines.loop.remembered.rows_of",
        lambda sequence, key, units: [unit for unit in sequence.units if key == KEY and unit in units],
    )
    for name, units in (("one", ["other", None]), ("two", ["gone", "other"])):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"unit": pa.array(units, pa.string())}), tmp_path / name / "window.parquet")
    first, second, third = (
        Rows(Path(f"/{number}"), units) for number, units in enumerate((("other",), ("gone", "other"), ("gone",)), 1)
    )
    bundles = {f"films/{n}": f"b{n}" for n in (1, 2, 9, 3)}
    state: Any = SimpleNamespace(
        store=Store({"b1": first, "b2": second, "b3": third}, [tmp_path / "one", tmp_path / "two"]),
        bundles=lambda: bundles,
    )
    found = remembered(state, KEY, {"gone"})
    assert found.versions == ("films/2", "films/3")
    assert found.unreadable == ("films/9",)
    assert found.folders == (Path("/2"), Path("/3"), tmp_path / "two")
    assert remembered(state, KEY, {"unknown"}).folders == ()
