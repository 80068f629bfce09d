"""Tables of texts for benchmarks/label.py: the texts, the oracle's recorded or simulated answers, the known labels.

Sources, by folder of `--data`:
  clinc150/data_full.json   github.com/clinc/oos-eval, data/ (CC BY 3.0)
  llm/banking77.csv         answers of GPT-4: github.com/stoyian/OCaTS; texts: BANKING77 (CC BY 4.0)
  llm/ecommerce.csv         answers of GPT-4o and GPT-4o mini: github.com/Applied-AI-Research-Lab,
                            Battle-of-LLM-Giants (MIT)
  llm/technology.csv        answers of GPT-4.1: github.com/bgonzalezbustamante/TextClass-Benchmark (CC BY 4.0)
An llm table has a column `text`, a column `gold`, and a column of answers per model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.study.rows import MINILM, at_unit_length
from kcm.inputs.content import Content

SYSTEMATIC, RANDOM = 0.05, 0.02  # shares of the rows on which the simulated oracle differs from the gold label


@dataclass(frozen=True)
class TextTable:
    """Texts and answers by model, one row each; `oracle` names the column that the labels must agree with.

    `labels` are the labels that a user would name: all gold labels.
    """

    name: str
    frame: pd.DataFrame
    oracle: str
    labels: tuple[str, ...]
    cheaper: str | None = None

    @property
    def answers(self) -> np.ndarray:
        """The oracle's answers [N]."""
        return self.frame[self.oracle].to_numpy()


RECORDED = {  # table: the oracle's column, the cheaper model's column
    "banking77": ("gpt4", None),
    "ecommerce": ("gpt_4o", "gpt_4o_mini"),
    "technology": ("gpt41", None),
}


def recorded(folder: Path, name: str) -> TextTable:
    """A table with recorded answers of language models."""
    frame = pd.read_csv(folder / "llm" / f"{name}.csv", dtype=str, keep_default_na=False)
    oracle, cheaper = RECORDED[name]
    return TextTable(name, frame, oracle, tuple(sorted(set(frame["gold"]))), cheaper)


def clinc(folder: Path, num_rows: int = 10_000, seed: int = 0, *, by_intent: bool = False) -> TextTable:
    """CLINC150's texts within scope, drawn by the seed, with the answers of a simulated oracle.

    On 5% of the rows, drawn at random, the oracle gives one fixed wrong intent per gold intent; on 2% any intent. With
    `by_intent` the 5% are all rows of some intents: mistakes that a small model can learn.
    """
    data = json.loads((folder / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    rows = [row for split in ("train", "val", "test") for row in data[split]]
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame([rows[row] for row in rng.permutation(len(rows))[:num_rows]], columns=["text", "gold"])
    answers = simulated(frame["gold"], rng, by_intent=by_intent)
    name = "clinc150, mistakes by intent" if by_intent else "clinc150"
    return TextTable(name, frame.assign(oracle=answers), "oracle", intents(frame["gold"]))


def simulated(gold: pd.Series, rng: np.random.Generator, *, by_intent: bool) -> np.ndarray:
    """The simulated oracle's answers [N] to rows with these gold labels, see `clinc`."""
    names = np.array(intents(gold), dtype=object)
    label_N = np.searchsorted(names.astype(str), gold.to_numpy(str))
    order = rng.permutation(len(names))
    confused = np.empty(len(names), dtype=int)
    confused[order] = np.roll(order, 1)  # every label has one fixed wrong label
    draw_N = rng.random(len(gold))
    is_random_N, is_confused_N = draw_N >= 1 - RANDOM, draw_N < SYSTEMATIC
    random_N = rng.integers(len(names), size=len(gold))
    if by_intent:
        is_confused_N = rng.permutation(len(names))[label_N] < round(SYSTEMATIC * len(names))
    return names[np.where(is_random_N, random_N, np.where(is_confused_N, confused[label_N], label_N))]


def intents(gold: pd.Series) -> tuple[str, ...]:
    """The labels of a column, sorted."""
    return tuple(sorted(set(gold)))


def embedded(texts: list[str], assets: Path) -> np.ndarray:
    """MiniLM's vectors of texts at unit length [N, 384]."""
    return at_unit_length(MINILM.build(assets).encode([Content(text=text) for text in texts]))
