"""Tables of texts for benchmarks/hints.py: two, five and six labels, each of which is one token of the model.

Sentiment comes from the `reviews` asset; topics from CLINC150 (`clinc150/data_full.json` and `domains.json` below
`--data`); products from the titles of `llm/ecommerce.csv`. benchmarks/label_tables.py names the sources.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

NUM_EXAMPLES = 2  # of each label, in the prompt
CLEAR = 1.0  # a mean rating of -4 to 4 beyond it
MAX_CHARS = 150  # longest text: the time of a call grows with its tokens
DOMAINS = {
    "banking": "banking",
    "kitchen_and_dining": "food",
    "travel": "travel",
    "work": "work",
    "auto_and_commute": "car",
}
DEPARTMENTS = {  # the first word of a category: the label
    **dict.fromkeys(("automotive", "car"), "car"),
    **dict.fromkeys(("baby",), "baby"),
    **dict.fromkeys(("cat", "dog", "fish", "horse", "reptiles", "pet", "small"), "pet"),
    **dict.fromkeys(("computer", "computers", "tablet", "laptop"), "computer"),
    **dict.fromkeys(("mens", "womens", "boys", "girls"), "clothing"),
    **dict.fromkeys(("makeup", "hair", "skin", "beauty", "perfumes", "foot", "shaving"), "beauty"),
}


@dataclass(frozen=True)
class HintTable:
    """Texts with gold labels, as numbers: the examples of the prompt, rows to ask about, rows to train on."""

    name: str
    labels: tuple[str, ...]
    examples: tuple[tuple[str, str], ...]  # text, label
    asked: tuple[tuple[str, int], ...]  # text, label
    train: tuple[tuple[str, int], ...]


def hint_table(name: str, assets: Path, data: Path, num_asked: int) -> HintTable:
    """The table `name`: `num_asked` rows to ask about, evenly over the labels, in an order fixed for all runs.

    A shorter list of rows to ask about is the beginning of a longer one.
    """
    rows = pd.DataFrame(SOURCES[name](assets, data), columns=["text", "label"]).drop_duplicates("text")
    rows = rows[rows["text"].str.len().between(20, MAX_CHARS)].sample(frac=1, random_state=0)
    rows["rank"] = rows.groupby("label").cumcount()  # takes labels in turn
    rows = rows.sort_values("rank", kind="stable")
    labels = tuple(sorted(set(rows["label"])))
    pairs = list(zip(rows["text"], rows["label"], strict=True))
    start = NUM_EXAMPLES * len(labels)
    numbered = [(text, labels.index(label)) for text, label in pairs[start:]]
    return HintTable(name, labels, tuple(pairs[:start]), tuple(numbered[:num_asked]), tuple(numbered[num_asked:]))


def _sentiment(assets: Path, data: Path) -> Iterable[tuple[str, str]]:
    """Sentences about products and films, and tweets, that people find clearly good or clearly bad."""
    for file in ("amazonReviewSnippets", "movieReviewSnippets", "tweets"):
        for line in (assets / "reviews" / f"{file}_GroundTruth.txt").read_text(encoding="utf-8").splitlines():
            _, rating, text = line.split("\t", maxsplit=2)
            if abs(float(rating)) > CLEAR:
                yield text.strip(), "positive" if float(rating) > 0 else "negative"


def _topic(assets: Path, data: Path) -> Iterable[tuple[str, str]]:
    """Requests to an assistant, five of CLINC150's domains."""
    domains = json.loads((data / "clinc150" / "domains.json").read_text(encoding="utf-8"))
    topics = {intent: DOMAINS[domain] for domain, intents in domains.items() if domain in DOMAINS for intent in intents}
    splits = json.loads((data / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    rows = (row for split in ("train", "val", "test") for row in splits[split])
    return ((text, topics[intent]) for text, intent in rows if intent in topics)


def _product(assets: Path, data: Path) -> Iterable[tuple[str, str]]:
    """Titles of products, six departments."""
    frame = pd.read_csv(data / "llm" / "ecommerce.csv", dtype=str, keep_default_na=False)
    departments = frame["gold"].str.split().str[0].map(DEPARTMENTS)
    clothes = (departments != "clothing") | frame["gold"].str.contains("clothing|shoes")
    frame = frame.assign(label=departments)[departments.notna() & clothes]
    return zip(frame["text"], frame["label"], strict=True)


SOURCES: Mapping[str, Callable[[Path, Path], Iterable[tuple[str, str]]]] = {
    "sentiment": _sentiment,
    "topic": _topic,
    "product": _product,
}


def encoded_labels(rows: Iterable[tuple[str, int]]) -> np.ndarray:
    """Labels of rows, as numbers [N]."""
    return np.array([label for _, label in rows])
