"""`kcm label` beside a threshold chosen by hand and beside asking about every row, on questions that GPT-4 answered.

    python benchmarks/by_hand.py --data FOLDER [--write]

FOLDER has llm/banking77.csv (head of benchmarks/label_tables.py). Both sides may differ from GPT-4 on 10% of the rows.

By hand: buy 1,000 answers at random, fit logistic regression on MiniLM's vectors, and look at its predictions by five
folds. Take the lowest threshold on the largest probability at which, by these predictions, at most 10% of the table
would differ. The model answers the rows above the threshold, the LLM the rest. This estimate is no bound.
These settings were written down before any figure was seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from benchmarks.label_tables import embedded, recorded
from benchmarks.label_texts import encode_once, run_command
from benchmarks.script import keep, options

TARGET, DELTA = 0.9, 0.05
NUM_BOUGHT, NUM_FOLDS = 1000, 5
NUM_SEEDS = 20


def main() -> None:
    parser = options(__doc__, True, "", "by_hand", ("data",), "storage/label")
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS)
    parser.add_argument("--bought", type=int, default=NUM_BOUGHT, help="answers that choose a threshold by hand")
    arguments = parser.parse_args()
    table = recorded(arguments.data, "banking77")
    vectors_ND = embedded(table.frame["text"].tolist(), arguments.assets)
    answers_N = table.answers.astype(str)
    encode_once(arguments.features)
    labelled = [run_command(table, TARGET, DELTA, seed, arguments.assets) for seed in range(arguments.seeds)]
    figures: dict[str, Any] = {
        "rows": len(answers_N),
        "allowed": int((1 - TARGET) * len(answers_N)),
        "kcm label": [{"calls": round(run["calls"] * len(answers_N)), "differ": run["differ"]} for run in labelled],
        "by hand": [by_hand(vectors_ND, answers_N, seed, arguments.bought) for seed in range(arguments.seeds)],
    }
    for side in ("kcm label", "by hand"):
        print(side, *summary(figures[side], figures["allowed"]))
    if arguments.write:
        keep("by_hand", figures)


def by_hand(vectors_ND: np.ndarray, answers_N: np.ndarray, seed: int, num_bought: int) -> dict[str, int]:
    """Calls, and rows that differ from the LLM's answer, with a threshold that one draw of answers suggests."""
    num_rows = len(answers_N)
    order = np.random.default_rng(seed).permutation(num_rows)
    bought, others = order[:num_bought], order[num_bought:]
    threshold = chosen_threshold(vectors_ND[bought], answers_N[bought], num_rows)
    model = regression().fit(vectors_ND[bought], answers_N[bought])
    score, answer = largest(model, vectors_ND[others])
    small = score >= threshold
    return {
        "calls": num_bought + int((~small).sum()),
        "differ": int((answer[small] != answers_N[others][small]).sum()),
    }


def chosen_threshold(vectors_BD: np.ndarray, answers_B: np.ndarray, num_rows: int) -> float:
    """The lowest threshold at which held-out predictions differ on at most 10% of the table; infinity if none is."""
    score_B, wrong_B = np.zeros(len(answers_B)), np.zeros(len(answers_B), dtype=bool)
    for train, held_out in KFold(NUM_FOLDS, shuffle=True, random_state=0).split(vectors_BD):
        model = regression().fit(vectors_BD[train], answers_B[train])
        score_B[held_out], answer = largest(model, vectors_BD[held_out])
        wrong_B[held_out] = answer != answers_B[held_out]
    surest_first = np.argsort(-score_B, kind="stable")
    differ = np.cumsum(wrong_B[surest_first]) * (num_rows - len(answers_B)) / len(answers_B)
    allowed = np.flatnonzero(differ <= (1 - TARGET) * num_rows)
    return float(score_B[surest_first[allowed[-1]]]) if len(allowed) else np.inf


def regression() -> LogisticRegression:
    return LogisticRegression(C=10, max_iter=2000)


def largest(model: LogisticRegression, vectors_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest probability [N] and its label [N]."""
    probability_NC = model.predict_proba(vectors_ND)
    return probability_NC.max(1), model.classes_[probability_NC.argmax(1)]


def summary(runs: list[dict[str, Any]], allowed: int) -> tuple[str, ...]:
    calls, differ = (np.array([run[key] for run in runs]) for key in ("calls", "differ"))
    over = int((differ > allowed).sum())
    return f"calls {calls.mean():.0f}", f"differ {differ.mean():.0f}", f"over {allowed}: {over} of {len(runs)}"


if __name__ == "__main__":
    main()
