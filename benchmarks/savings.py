"""The figures of `kcm savings`: CPU seconds, and the forecast share of calls against the share of the next 10,000.

    python benchmarks/savings.py --data DATA [--seeds 10] [--only time shuffled drifting] [--write]

A simulated log of 50,000 calls in 30 days, as requests and responses of OpenAI's interface, of three templates: the
intent of a question and the domain of another one (CLINC150, CC BY 3.0; `DATA/clinc150`), and free text (questions and
answers of GSM8K, Apache-2.0; `DATA/routellm_gsm8k`). No two calls of the first two share a text. The large model is
simulated: it gives another label than the gold one on 7% of the intents (benchmarks/label_tables.py) and on 2% of the
domains.

time      the command on one log, in CPU seconds of its process, encoding included
shuffled  logs whose calls are drawn at random
drifting  logs in which the odds of domains change with time, from 1.1 times to 3 times until the end of the log; they
          go on changing in the next 10,000 calls

The settings of `kcm savings` are its defaults. `differ` counts kept answers of the next calls that are not the large
model's, as a share of all of them: what the certificate bounds.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.label_tables import simulated
from benchmarks.script import keep, options
from kcm.labelling.encoding import Encode
from kcm.logs.savings import Savings, savings

NUM_LOGGED = 50_000
NEXT = 0.2  # calls after the log, as a share of its calls
SHARE = 0.18  # of the calls, for each of the two classifications; the rest is free text
DRIFTING_SHARE = 0.1  # in drifting logs, which must not use up the questions of the domains that grow
BEGIN, DAYS = 1_760_000_000, 30
DRIFTS = tuple(np.round(np.geomspace(1.1, 3.0, 10), 2).tolist())  # factors of odds until the end of the log
DOMAIN_NOISE = 0.02
PROMPTS = {
    "intent": ("Name the intent of the customer's question. Answer with the label alone.", "Question: {}"),
    "domain": ("", "Which team answers this question? Answer as JSON with the field team.\n\nQuestion: {}\nTeam:"),
    "free text": ("You explain mathematics to pupils, step by step.", "{}"),
}


@dataclass(frozen=True)
class Simulated:
    """Calls in the order of time: template, text and reply; the first `num_logged` are the log."""

    calls: list[tuple[str, str, str]]
    num_logged: int

    def write(self, path: Path) -> None:
        """The log."""
        step = DAYS * 86_400 / self.num_logged
        with path.open("w", encoding="utf-8") as file:
            for number, (name, text, reply) in enumerate(self.calls[: self.num_logged]):
                file.write(json.dumps(_exchange(name, text, reply, BEGIN + number * step)) + "\n")

    def later(self, name: str) -> list[tuple[str, str]]:
        """Texts and replies of a template among the next calls."""
        return [(text, reply) for template, text, reply in self.calls[self.num_logged :] if template == name]


def _exchange(name: str, text: str, reply: str, time: float) -> dict[str, Any]:
    system, user = PROMPTS[name]
    messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": user.format(text)})
    num_read = sum(len(message["content"]) for message in messages) // 4  # about what a tokenizer would count
    usage = {"prompt_tokens": num_read, "completion_tokens": max(1, len(reply) // 4)}
    choice = {"index": 0, "message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}
    return {
        "request": {"model": "gpt-4o", "messages": messages},
        "response": {"model": "gpt-4o-2024-08-06", "created": int(time), "choices": [choice], "usage": usage},
    }


def simulate(data: Path, seed: int, drift: float | None = None, num_logged: int = NUM_LOGGED) -> Simulated:
    """A log and the calls after it. With `drift` the odds of the first half of the domains grow by this factor."""
    rng = np.random.default_rng(seed)
    clinc = json.loads((data / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    domain_of = {
        intent: domain
        for domain, intents in json.loads((data / "clinc150" / "domains.json").read_text(encoding="utf-8")).items()
        for intent in intents
    }
    rows = [row for split in ("train", "val", "test") for row in clinc[split]]
    frame = pd.DataFrame([rows[row] for row in rng.permutation(len(rows))], columns=["text", "intent"])
    half = len(frame) // 2
    domains = frame["intent"].map(domain_of)
    said = domains.where(rng.random(len(frame)) >= DOMAIN_NOISE, rng.choice(sorted(set(domains)), len(frame)))
    replies: dict[str, Sequence[str]] = {
        "intent": simulated(frame["intent"], rng, by_intent=False).tolist(),
        "domain": [json.dumps({"team": team}) for team in said],
    }
    pools = {"intent": list(range(half)), "domain": list(range(half, len(frame)))}
    with (data / "routellm_gsm8k" / "gsm8k_responses.csv").open(encoding="utf-8", newline="") as file:
        lessons = [(row["prompt"], row["gpt-4-1106-preview_response"]) for row in csv.DictReader(file)]
    calls: list[tuple[str, str, str]] = []
    texts = frame["text"].tolist()
    rising = set(sorted(set(domain_of.values()))[:5])
    share = SHARE if drift is None else DRIFTING_SHARE
    names = rng.choice(list(PROMPTS), round((1 + NEXT) * num_logged), p=[share, share, 1 - 2 * share])
    for number, name in enumerate(names):
        if name == "free text":
            question, answer = lessons[rng.integers(len(lessons))]
            calls.append((str(name), question, answer))
            continue
        odds = 1.0 if drift is None else drift ** (number / num_logged)
        row = _drawn(pools[name], odds, rising, domains, rng)
        calls.append((str(name), texts[row], str(replies[name][row])))
    return Simulated(calls, num_logged)


def _drawn(pool: list[int], odds: float, rising: set[str], domains: pd.Series, rng: np.random.Generator) -> int:
    """Take a row out of the pool; one of the rising domains is `odds` times as likely as another one."""
    while True:
        place = int(rng.integers(len(pool)))
        if odds == 1.0 or domains.iat[pool[place]] in rising or rng.random() < 1 / odds:
            pool[place], pool[-1] = pool[-1], pool[place]
            return pool.pop()


class Remembered:
    """A mapper that encodes every text once for all logs."""

    def __init__(self) -> None:
        self.vectors: dict[str, np.ndarray] = {}

    def __call__(self, build: Callable[[], Encode], parts: Sequence[Sequence[str]]) -> Iterator[np.ndarray]:
        """Vectors of lists of texts."""
        encode = None
        for part in parts:
            missing = [text for text in dict.fromkeys(part) if text not in self.vectors]
            if missing:
                encode = encode or build()
                self.vectors |= dict(zip(missing, encode(missing), strict=True))
            yield np.stack([self.vectors[text] for text in part])


def replay(log: Simulated, seed: int, assets: Path, mapper: Remembered) -> list[dict[str, Any]]:
    """The forecast of each classification, and what its small model does with the next calls."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        log.write(path)
        found = savings(path, ledger=Path(folder) / "ledger", assets=assets, mapper=mapper, seed=seed)
    return [_compared(found, name, log.later(name)) for name in ("intent", "domain")]


def _compared(found: Savings, name: str, later: Sequence[tuple[str, str]]) -> dict[str, Any]:
    start = PROMPTS[name][1].partition("{}")[0]
    template = next(each for each in found.templates if each.forecast and each.group.template.before == start)
    forecast, reader = template.forecast, template.group.reader
    assert forecast is not None
    assert reader is not None
    assert forecast.trained is not None
    texts = [text for text, _ in later]
    answer_N, score_N = forecast.trained.side.judged(found.vectors.of(texts, len(texts)))
    labels = np.array([reader.label(reply) for _, reply in later], dtype=object)
    kept_N = forecast.decision.keep(score_N)
    differ = kept_N & (np.array(forecast.labels, dtype=object)[answer_N] != labels)
    low, high = forecast.interval
    share = float(kept_N.mean())
    return {
        "template": name,
        "forecast": round(forecast.share, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "next": round(share, 4),
        "inside": bool(low <= share <= high),
        "withdrawn": forecast.drift.detected,
        "p_value": round(forecast.drift.p_value, 4),
        "differ": round(float(differ.mean()), 4),
        "next_calls": len(later),
    }


def timed(given: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds and the largest memory of the command on one log."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        simulate(given.data, 0, num_logged=given.calls).write(path)
        command = [sys.executable, "-m", "jobs.cli", "savings", str(path), "--ledger", f"{folder}/ledger"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        print(ran.stdout)
        return {"cpu_s": round(seconds, 1), "peak_mib": used.ru_maxrss // 1024, "log_mib": path.stat().st_size >> 20}


def main() -> None:
    """Print the figures that are asked for, and keep them with --write."""
    parser = options(__doc__, assets=True, results="savings")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--calls", type=int, default=NUM_LOGGED, help="calls of a log; a fifth as many come after it")
    parser.add_argument("--seeds", type=int, default=len(DRIFTS))
    parser.add_argument("--only", nargs="+", default=["time", "shuffled", "drifting"])
    given = parser.parse_args()
    mapper, figures = Remembered(), dict[str, Any]()
    if "time" in given.only:
        figures["time"] = timed(given)
        print(json.dumps(figures["time"]), flush=True)
    for cell in ("shuffled", "drifting"):
        rows = []
        for seed in range(given.seeds) if cell in given.only else ():
            drift = DRIFTS[seed % len(DRIFTS)] if cell == "drifting" else None
            for row in replay(simulate(given.data, seed, drift, given.calls), seed, given.assets, mapper):
                rows.append({"seed": seed, **({"drift": drift} if drift else {}), **row})
                print(json.dumps(rows[-1]), flush=True)
        if rows:
            figures[cell] = rows
    if given.write:
        keep("savings", figures)


if __name__ == "__main__":
    main()
