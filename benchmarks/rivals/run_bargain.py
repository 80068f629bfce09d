"""BARGAIN on tables with a given score: oracle calls avoided, or what a budget of labels returns; promises broken.

    python -m venv bargain && bargain/bin/pip install BARGAIN==0.1.3
    bargain/bin/python benchmarks/rivals/run_bargain.py --data DATA [--promise accuracy] [--only reviews]

`accuracy` runs BARGAIN_A at .90 and .95. `precision` and `recall` run BARGAIN_P and BARGAIN_R at .9 with 1,000 labels.
Delta is .1, 100 seeds. Everything else has BARGAIN's defaults. Its models look recorded values up in arrays, not in
threads.
Source: Zeighami, Shankar, Parameswaran, "Cut Costs, Not Accuracy", SIGMOD 2026 (arXiv 2509.02896).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from BARGAIN import BARGAIN_A, BARGAIN_P, BARGAIN_R, Oracle, Proxy
from tables import SCORED, Scored, arguments, report, scored, selection, summary

DELTA, BUDGET = 0.1, 1000
SELECTORS = {"precision": BARGAIN_P, "recall": BARGAIN_R}


class RecordedProxy(Proxy):
    """The likelier answer and its probability."""

    def __init__(self, table: Scored) -> None:
        super().__init__(verbose=False)
        self.answers = (table.scores >= 0.5).astype(int)
        self.probabilities = np.maximum(table.scores, 1 - table.scores)

    def get_preds_and_scores(self, indxs: Sequence[int], data_records: Any) -> tuple[np.ndarray, np.ndarray]:
        rows = np.asarray(indxs, dtype=int)
        return self.answers[rows], self.probabilities[rows]


class RecordedOracle(Oracle):
    """Recorded labels; remembers the requested rows."""

    def __init__(self, table: Scored) -> None:
        super().__init__(verbose=False)
        self.labels = table.labels

    def get_pred(self, data_records: Any, indxs: Sequence[int] | None = None) -> np.ndarray:
        rows = np.asarray(data_records if indxs is None else indxs, dtype=int)
        self.preds_dict.update(dict.fromkeys(rows.tolist(), True))
        return self.labels[rows]

    def is_answer_correct(self, data_indxs: Sequence[int], data_records: Any, proxy_output_at_indxs: Any) -> np.ndarray:
        return self.get_pred(data_records, data_indxs) == np.asarray(proxy_output_at_indxs)


def accuracy(table: Scored, target: float, seed: int) -> dict[str, float]:
    """One table labelled by BARGAIN_A: share of calls avoided, and agreement with the oracle."""
    proxy, oracle = RecordedProxy(table), RecordedOracle(table)
    method = BARGAIN_A(proxy, oracle, target=target, delta=DELTA, verbose=False, seed=seed)
    output = np.asarray(method.process(np.arange(len(table.labels))))
    num_bought = oracle.get_number_preds()
    return {
        "avoided": 1 - num_bought / len(output),
        "agreement": float((output == table.labels).mean()),
        "bought": num_bought,
    }


def selected(promise: str, table: Scored, target: float, seed: int) -> dict[str, float]:
    """What BARGAIN_P or BARGAIN_R returns for a budget of labels."""
    proxy, oracle = RecordedProxy(table), RecordedOracle(table)
    budget = min(BUDGET, len(table.labels))
    method = SELECTORS[promise](proxy, oracle, target=target, delta=DELTA, budget=budget, seed=seed)
    positions = np.asarray(method.process(np.arange(len(table.labels))), dtype=int)
    return selection(table.labels, positions, oracle.get_number_preds())


def measured(options: Any) -> Iterator[dict[str, Any]]:
    for name in options.only or SCORED:
        table = scored(options.data, name)
        for target in options.targets:
            if options.promise == "accuracy":
                runs = [accuracy(table, target, seed) for seed in range(options.seeds)]
                figures = summary(runs, "agreement", target)
            else:
                runs = [selected(options.promise, table, target, seed) for seed in range(options.seeds)]
                figures = summary(runs, options.promise, target)
            row = {"rival": "BARGAIN 0.1.3", "promise": options.promise, "table": name, "target": target}
            yield row | figures


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--promise", choices=["accuracy", *SELECTORS], default="accuracy")
    parser.add_argument("--targets", type=float, nargs="*", help=".90 and .95 for accuracy, .9 for the others")
    options = parser.parse_args()
    options.targets = options.targets or ([0.9, 0.95] if options.promise == "accuracy" else [0.9])
    report(measured(options), options.json)
