"""The table of memory in docs/cluster.md, from benchmarks/results/scale.json: `python benchmarks/scale_table.py`."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "scale.json"
FEATURES = 64  # features of a row
_COLUMNS = {  # and what Ray calls the processes
    "driver": "driver",
    "train worker": "RayTrainWorker",
    "a trial": "Trial",
    "`features`, `outcomes`": "MapWorker",
    "the process that certifies and measures": "measure",
    "the one that writes the bundle": "_write_bundle",
}


def memory_table() -> str:
    """Largest private memory of a process, in MiB, by rows of the job, as `scale.py job --write` found it."""
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["job"][f"{FEATURES} features"]["found"]
    lines = [f"| rows | {' | '.join(_COLUMNS)} |", "|---" * (len(_COLUMNS) + 1) + "|"]
    for row in rows:
        sizes = (f"{row['peak_mib'][kind]:,}" for kind in _COLUMNS.values())
        lines.append(f"| {row['rows'] / 1e6:g} million | {' | '.join(sizes)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(memory_table())
