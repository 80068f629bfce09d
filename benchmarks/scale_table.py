"""The table of memory in docs/scale.md, from benchmarks/results/scale.json: `python benchmarks/scale_table.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "scale.json"
FEATURES = 64  # of a row
_COLUMNS = {  # and what Ray calls the processes
    "driver": "driver",
    "train worker": "RayTrainWorker",
    "a trial": "Trial",
    "`features`, `outcomes`": "MapWorker",
    "the process that certifies and measures": "measure",
    "the one that writes the bundle": "_write_bundle",
}


def measured() -> Sequence[Mapping[str, Any]]:
    """What `scale.py job --write` found; nothing where it has not run."""
    if not RESULTS.exists():
        return []
    known: Mapping[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    found: Sequence[Mapping[str, Any]] = known["job"][f"{FEATURES} features"]["found"]
    return found


def memory_table(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of the table: largest private memory of a process, in MiB, by rows of the job."""
    yield f"| rows | {' | '.join(_COLUMNS)} |"
    yield "|---" * (len(_COLUMNS) + 1) + "|"
    for row in found:
        sizes = (f"{row['peak_mib'][kind]:,}" for kind in _COLUMNS.values())
        yield f"| {_count(row['rows'])} | {' | '.join(sizes)} |"


def _count(rows: int) -> str:
    return f"{rows / 1e6:g} million" if rows >= 1_000_000 else f"{rows:,}"


if __name__ == "__main__":
    print("\n".join(memory_table(measured())))
