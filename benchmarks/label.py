"""The figures of `kcm label` on tables of texts: oracle calls, money, and promises kept.

    python benchmarks/label.py --data DATA [--table ecommerce] [--text-seeds 3] [--write]

`DATA` has the folders clinc150/ and llm/; the head of benchmarks/label_tables.py says where their files come from.
clinc150 has 10,000 questions and a simulated oracle that is wrong on 5% by a fixed confusion and on 2% at random (by
rows, or by intents), the others recorded answers. A row has calls per row, the share of the money, and CPU seconds of
a run beside encoding, at delta .05. Every promise is checked against the answers that the run never saw.

Each job is a first look at its table, which spends 80% of delta. `--write` keeps rows that were not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import kcm.labelling.label
from benchmarks.label_tables import TextTable, clinc, recorded
from benchmarks.label_texts import encode_once, run_command
from benchmarks.script import keep, options, read
from benchmarks.study.rows import MINILM
from kcm.labelling.texts import Texts

TARGETS = (0.9, 0.95)
DELTA = 0.05
CLINC = {"clinc150": clinc, "clinc150, mistakes by intent": partial(clinc, by_intent=True)}
TABLES = ("technology", "banking77", *CLINC, "ecommerce")


def merged(earlier: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, after earlier ones that were not measured again."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["table"], row["target"], row["spends"]

    again = {*map(key, rows)}
    return [row for row in earlier if key(row) not in again] + rows


def num_broken(differ: Iterable[int], promised: Iterable[float], num_rows: int) -> int:
    """How many runs differ on more rows than they promised."""
    return sum(int(rows > round((1 - share) * num_rows)) for rows, share in zip(differ, promised, strict=True))


def text_rows(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Tables of texts by the command, for every target."""
    for name in given.table:
        table = CLINC[name](given.data) if name in CLINC else recorded(given.data, name)
        kcm.labelling.label.encoded(Texts.of(table.frame, "text").texts, MINILM, given.assets)
        for cheaper in (False, True) if table.cheaper else (False,):
            for target in TARGETS:
                yield text_row(table, target, given, cheaper)


def text_row(table: TextTable, target: float, given: argparse.Namespace, cheaper: bool) -> dict[str, Any]:
    """One table of texts by the command: means over seeds."""
    began = time.process_time()
    runs = [run_command(table, target, DELTA, seed, given.assets, cheaper) for seed in range(given.text_seeds)]
    seconds = time.process_time() - began
    return {
        "cell": "texts",
        "table": f"{table.name} with a cheaper model" if cheaper else table.name,
        "target": target,
        "delta": DELTA,
        "spends": "first look",
        "calls": round(float(np.mean([run["calls"] for run in runs])), 4),
        "money": round(float(np.mean([run["money"] for run in runs])), 4),
        "certified": sum(run["certified"] for run in runs),
        "broken": num_broken([run["differ"] for run in runs], [run["promised"] for run in runs], len(table.answers)),
        "seeds": given.text_seeds,
        "money_by_seed": [round(run["money"], 4) for run in runs],
        "cpu_seconds": round(seconds / given.text_seeds, 1),
    }


def main() -> None:
    """Print the figures row by row."""
    parser = options(__doc__, assets=True, results="label", features="storage/label")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--text-seeds", type=int, default=1)
    parser.add_argument("--table", nargs="*", choices=TABLES, default=TABLES)
    arguments = parser.parse_args()
    encode_once(arguments.features)
    rows = []
    for row in text_rows(arguments):
        rows.append(row)
        print(json.dumps(rows[-1]), flush=True)
    if arguments.write:
        keep("label", {"texts": merged(read("label").get("texts", []), rows)})


if __name__ == "__main__":
    main()
