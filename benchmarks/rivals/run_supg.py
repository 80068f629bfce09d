"""SUPG on its tables: precision .9 or recall .9 with at most 1,000 labels; what is returned, and promises broken.

    git clone https://github.com/stanford-futuredata/supg && git -C supg checkout cff4e7eb
    python -m venv venv && venv/bin/pip install numpy==2.4.6 pandas==2.3.3 scipy==1.17.1 tqdm feather-format -e supg
    venv/bin/python benchmarks/rivals/run_supg.py --data DATA [--only onto]

The package on PyPI (0.0.1) has no code. Selectors and samplers are those of supg/experiments/example.py, with delta .1.
Source: Kang, Gan, Bailis, Hashimoto, Zaharia, "Approximate Selection with Guarantees using Proxies", VLDB 2020
(arXiv 2004.00827), algorithms 4 and 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from supg.datasource import DFDataSource
from supg.sampler import ImportanceSampler
from supg.selector import ApproxQuery, ImportancePrecisionTwoStageSelector, RecallSelector
from tables import Scored, arguments, report, scored, selection, summary

DELTA, BUDGET, TARGET = 0.1, 1000, 0.9
TABLES = ("onto", "tacred", "imagenet")


class Source(DFDataSource):
    """A table that remembers the rows whose label was looked up before the result is filtered."""

    def __init__(self, table: Scored) -> None:
        rows = {"id": range(len(table.labels)), "proxy_score": table.scores, "label": table.labels.astype("float32")}
        super().__init__(pd.DataFrame(rows))
        self.asked: set[int] = set()

    def lookup(self, ids: Any) -> np.ndarray:
        self.asked.update(np.asarray(ids, dtype=int).tolist())
        return super().lookup(ids)


def selected(promise: str, table: Scored, seed: int) -> dict[str, float]:
    """What SUPG returns for one seed."""
    source, sampler = Source(table), ImportanceSampler(seed=seed)
    query = ApproxQuery(
        qtype="pt" if promise == "precision" else "rt",
        min_recall=TARGET,
        min_precision=TARGET,
        delta=DELTA,
        budget=BUDGET,
    )
    if promise == "precision":
        selector = ImportancePrecisionTwoStageSelector(query, source, sampler)
    else:
        selector = RecallSelector(query, source, sampler, sample_mode="sqrt")
    positions = np.asarray(selector.select(), dtype=int)
    return selection(table.labels, positions, len(source.asked))


def measured(options: Any) -> Iterator[dict[str, Any]]:
    for name in options.only or TABLES:
        table = scored(options.data, name)
        for promise in ("precision", "recall"):
            runs = [selected(promise, table, seed) for seed in range(options.seeds)]
            row = {"rival": "SUPG cff4e7eb", "promise": promise, "table": name, "target": TARGET}
            yield row | summary(runs, promise, TARGET)


if __name__ == "__main__":
    options = arguments(__doc__).parse_args()
    report(measured(options), options.json)
