"""What is in a task sequence, for the person who brought the rows: labels, rows, units, and what looks like a slip."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from kcm.metrics.units import Units
from kcm.tasks.sequence import TaskSequence
from kcm.tasks.splits import SPLITS
from kcm.tasks.units import text_key

_SHORTEST = 5  # letters of labels that are compared: shorter ones, such as cat and car, differ by a letter on purpose


@dataclass(frozen=True)
class Summary:
    """Counts of a task sequence.

    `labels` are the rows of each label, `rows` those of each task by split, `certify_units` what was drawn
    independently of the certify split of each task, `alike` pairs of labels that are spelled almost alike.
    """

    labels: dict[str, int]
    rows: dict[str, dict[str, int]]
    certify_units: dict[str, int]
    alike: list[tuple[str, str]]
    num_bad: int

    @property
    def num_rows(self) -> int:
        """All rows that are used."""
        return sum(sum(splits.values()) for splits in self.rows.values())


def summarize(sequence: TaskSequence) -> Summary:
    """Count rows, labels and units."""
    counts: Counter[int] = Counter()
    rows: dict[str, dict[str, int]] = {}
    units: dict[str, int] = {}
    for task in sequence.tasks:
        rows[task.name] = {split: len(task.splits[split]) for split in SPLITS}
        for split in SPLITS:
            counts.update(task.splits[split]["label"])
        groups = np.array([group or None for group in task.splits["certify"]["group"]], dtype=object)
        units[task.name] = Units(groups, len(groups)).count
    labels = {label: counts[number] for number, label in enumerate(sequence.label_names)}
    return Summary(labels, rows, units, alike(sequence.label_names), len(sequence.bad_rows))


def alike(labels: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of labels that differ in case, spaces or marks alone, or by one letter; numbers are meant to differ."""
    names = list(labels)
    plain = {label: re.sub(r"[\W_]+", "", text_key(label)) for label in names}
    near: dict[str, list[str]] = defaultdict(list)
    for label, letters in plain.items():
        near[letters].append(label)
        if len(letters) >= _SHORTEST:
            for shorter in {letters[:place] + letters[place + 1 :] for place in range(len(letters))}:
                near[shorter].append(label)
    pairs = {pair for members in near.values() for pair in combinations(members, 2)}
    return sorted(pair for pair in pairs if _digits(plain[pair[0]]) == _digits(plain[pair[1]]))


def _digits(letters: str) -> list[str]:
    return re.findall(r"\d+", letters)
