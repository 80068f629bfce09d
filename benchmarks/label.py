"""The figures of `kcm label`, `kcm.label_scored` and `kcm.select_scored`: oracle calls, and promises kept.

    python benchmarks/label.py --data DATA [--only scored selection texts boundary] [--write]
    python benchmarks/label.py --data DATA --only texts --table ecommerce --spends "first look" --text-seeds 3 --write

`DATA` has the folders bargain/, supg/, clinc150/ and llm/; the heads of benchmarks/rivals/tables.py and
benchmarks/label_tables.py say where their files come from. The rivals' figures: benchmarks/rivals/run_*.py.

scored    tables with a given score, by `kcm.label_scored`: share of calls avoided, delta .1
selection the same tables by `kcm.select_scored`: precision .9 or recall .9 by at most 1,000 calls, delta .1
boundary  simulated tables on which a promise breaks as often as it may, delta .05
texts     tables of texts by the command `kcm label`, delta .05: calls per row, share of the money, and CPU seconds of
          a run beside encoding. clinc150 has 10,000 questions and a simulated oracle that is wrong on 5% by a fixed
          confusion and on 2% at random (by rows, or by intents, see benchmarks/label_tables.py), the others recorded
          answers

Every promise is checked against the answers that the run never saw. `whole` spends all of delta, as BARGAIN does.
`first look` spends what a ledger gives to the first look at a table, 80% of delta; `kcm label` does so by default.
`--write` keeps rows of `scored` and `texts` that were not measured again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import kcm.labelling.label
from benchmarks import label_boundary
from benchmarks.label_tables import TextTable, clinc, recorded
from benchmarks.label_texts import encode_once, run_command
from benchmarks.rivals.tables import SCORED, Scored, report, scored, selection, summary
from benchmarks.script import keep, options, read
from benchmarks.study.rows import MINILM
from kcm.certification.ledger import question_delta
from kcm.labelling.scored import label_scored
from kcm.labelling.selection import select_scored
from kcm.labelling.table import Texts

TARGETS = (0.9, 0.95)
SCORED_DELTA, TEXT_DELTA = 0.1, 0.05
SPENDS = ("first look", "whole")
CLINC = {"clinc150": clinc, "clinc150, mistakes by intent": partial(clinc, by_intent=True)}
TEXT_TABLES = ("technology", "banking77", *CLINC, "ecommerce")
SELECTION_TARGET, SELECTION_CALLS = 0.9, 1000
GROUPS = {"bargain": ("reviews", "court_opinion"), "supg": ("onto", "tacred", "imagenet")}
WANTED = {  # (must, aim) of the share of calls avoided, and of calls or money per row
    ("bargain", 0.9): (0.64, 0.70),
    ("bargain", 0.95): (0.47, 0.53),
    ("supg", 0.9): (0.993, 0.997),
    ("supg", 0.95): (0.964, 0.985),  # BARGAIN's over the same seeds
    ("clinc150", 0.9): (0.34, 0.27),
    ("clinc150", 0.95): (0.42, 0.35),
    ("banking77", 0.9): (0.50, 0.42),
    ("banking77", 0.95): (0.66, 0.58),
    ("ecommerce", 0.9): (0.86, 0.80),
    ("ecommerce with a cheaper model", 0.9): (0.45, 0.40),
    ("ecommerce with a cheaper model", 0.95): (0.66, 0.60),
    ("technology", 0.9): (0.22, 0.16),
    ("technology", 0.95): (0.32, 0.25),
}


def spent(delta: float) -> dict[str, float]:
    """What a promise at `delta` may spend, by the name of the row."""
    return {"whole": delta, "first look": question_delta(delta, 1)}


def wanted(row: dict[str, Any]) -> dict[str, float]:
    """What the figures of a row must and should reach."""
    return dict(zip(("must", "aim"), WANTED.get((row.get("table", ""), row.get("target", 0)), ()), strict=False))


def merged(earlier: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, after earlier ones that were not measured again."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["table"], row["target"], row["spends"]

    again = {*map(key, rows)}
    return [row for row in earlier if key(row) not in again] + rows


def num_broken(differ: Iterable[int], promised: Iterable[float], num_rows: int) -> int:
    """How many runs differ on more rows than they promised."""
    return sum(int(rows > round((1 - share) * num_rows)) for rows, share in zip(differ, promised, strict=True))


def by_scores(table: Scored, target: float, delta: float, seed: int) -> tuple[float, int, float]:
    """One table by `kcm.label_scored`: share of calls avoided, rows that differ, and the promised share."""
    probabilities = np.column_stack([1 - table.scores, table.scores])
    found = label_scored(probabilities, lambda rows: table.labels[rows].tolist(), target=target, delta=delta, seed=seed)
    differ = int((np.asarray(found.labels) != table.labels).sum())
    return 1 - float(found.bought.mean()), differ, float(found.certificate.promised)


def scored_rows(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Tables with a given score: every table, and the mean of every source of tables."""
    avoided: dict[tuple[str, str, float], float] = {}
    for spend in given.spends:
        delta = spent(SCORED_DELTA)[spend]
        for name in SCORED:
            table = scored(given.data, name)
            for target in TARGETS:
                runs = [by_scores(table, target, delta, seed) for seed in range(given.seeds)]
                shares, differ, promised = map(np.array, zip(*runs, strict=True))
                avoided[spend, name, target] = float(shares.mean())
                broken = num_broken(differ, promised, len(table.labels))
                row = {"cell": "scored", "table": name, "target": target, "delta": SCORED_DELTA, "spends": spend}
                yield row | {"avoided": round(float(shares.mean()), 4), "broken": broken, "seeds": given.seeds}
        for group, target in ((group, target) for group in GROUPS for target in TARGETS):
            mean = float(np.mean([avoided[spend, name, target] for name in GROUPS[group]]))
            row = {"cell": "scored", "table": group, "target": target, "delta": SCORED_DELTA, "spends": spend}
            yield row | {"avoided": round(mean, 4)}


def selected(table: Scored, promise: str, seed: int) -> dict[str, float]:
    """What `kcm.select_scored` returns for one seed."""
    promised = {promise: SELECTION_TARGET}
    found = select_scored(
        table.scores,
        lambda rows: table.labels[rows],
        delta=SCORED_DELTA,
        max_calls=SELECTION_CALLS,
        seed=seed,
        **promised,  # type: ignore[arg-type]
    )
    return selection(table.labels, np.flatnonzero(found.selected), int(found.bought.sum()))


def selection_rows(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Tables with a given score by a promise of precision or recall, each below the rivals' rows."""
    rivals = read("label_rivals")["rows"]
    for promise, name in product(("precision", "recall"), SCORED):
        row = {"promise": promise, "table": name, "target": SELECTION_TARGET}
        yield from ({"cell": "selection", **rival} for rival in rivals if row.items() <= rival.items())
        table = scored(given.data, name)
        runs = [selected(table, promise, seed) for seed in range(given.seeds)]
        yield {"cell": "selection", "rival": "kcm", **row, **summary(runs, promise, SELECTION_TARGET)}


def text_rows(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Tables of texts by the command, for every target and both shares of delta."""
    for name in given.table:
        table = CLINC[name](given.data) if name in CLINC else recorded(given.data, name)
        kcm.labelling.label.encoded(Texts.of(table.frame, "text").texts, MINILM, given.assets)
        for cheaper in (False, True) if table.cheaper else (False,):
            for spend, target in product(given.spends, TARGETS):
                yield text_row(table, target, spend, given, cheaper)


def text_row(table: TextTable, target: float, spend: str, given: argparse.Namespace, cheaper: bool) -> dict[str, Any]:
    """One table of texts by the command: means over seeds."""
    asked = TEXT_DELTA * spent(TEXT_DELTA)[spend] / question_delta(TEXT_DELTA, 1)  # the command spends a share of it
    began = time.process_time()
    runs = [run_command(table, target, asked, seed, given.assets, cheaper) for seed in range(given.text_seeds)]
    seconds = time.process_time() - began
    return {
        "cell": "texts",
        "table": f"{table.name} with a cheaper model" if cheaper else table.name,
        "target": target,
        "delta": TEXT_DELTA,
        "spends": spend,
        "calls": round(float(np.mean([run["calls"] for run in runs])), 4),
        "money": round(float(np.mean([run["money"] for run in runs])), 4),
        "certified": sum(run["certified"] for run in runs),
        "broken": num_broken([run["differ"] for run in runs], [run["promised"] for run in runs], len(table.answers)),
        "seeds": given.text_seeds,
        "money_by_seed": [round(run["money"], 4) for run in runs],
        "cpu_seconds": round(seconds / given.text_seeds, 1),
    }


def boundary_rows(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """How often promises break at the boundary."""
    yield from label_boundary.measured(given.tables)


CELLS: dict[str, Callable[[argparse.Namespace], Iterator[dict[str, Any]]]] = {
    "scored": scored_rows,
    "selection": selection_rows,
    "texts": text_rows,
    "boundary": boundary_rows,
}


def main() -> None:
    """Print the figures row by row."""
    parser = options(__doc__, assets=True, results="label")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--only", nargs="*", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--seeds", type=int, default=100, help="of tables with a given score")
    parser.add_argument("--text-seeds", type=int, default=1, help="of tables of texts")
    parser.add_argument("--table", nargs="*", choices=TEXT_TABLES, default=TEXT_TABLES, help="tables of texts")
    parser.add_argument(
        "--spends", nargs="*", choices=SPENDS, default=SPENDS, help="of tables with a score or of texts"
    )
    parser.add_argument("--tables", type=int, default=1000, help="simulated tables at the boundary")
    parser.add_argument("--features", type=Path, default=Path("storage/label"), help="folder of vectors")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    given = parser.parse_args()
    encode_once(given.features)
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in given.only}

    def rows() -> Iterator[dict[str, Any]]:
        for name in given.only:
            for row in CELLS[name](given):
                figures[name].append(row | wanted(row))
                yield figures[name][-1]

    report(rows(), given.json)
    if given.write:
        for name in figures.keys() & {"scored", "texts"}:
            figures[name] = merged(read("label").get(name, []), figures[name])
        keep("label", figures)


if __name__ == "__main__":
    main()
