"""What is in a task sequence, for the person who brought the rows: labels, rows, units, and what looks like a slip."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from kcm.tasks.sequence import read_description
from kcm.tasks.units import text_key

_SHORTEST = 5  # letters of labels that are compared: shorter ones, such as cat and car, differ by a letter on purpose


@dataclass(frozen=True)
class Summary:
    """Counts of a task sequence.

    `labels` are the rows of each label, `rows` those of each task by split, `certify_units` what was drawn
    independently of the certify split of each task. `num_overlapping` rows were left out since another split has their
    content or group. `num_repeating` rows without a group have a content that others have too, with which they are one
    unit.
    """

    labels: dict[str, int]
    rows: dict[str, dict[str, int]]
    certify_units: dict[str, int]
    num_bad: int
    num_overlapping: int = 0
    num_repeating: int = 0

    @property
    def num_rows(self) -> int:
        """All rows that are used."""
        return sum(sum(splits.values()) for splits in self.rows.values())

    @property
    def alike(self) -> list[tuple[str, str]]:
        """Pairs of labels that are spelled almost alike."""
        return alike(self.labels)


def read_summary(folder: Path) -> Summary:
    """The summary of a sequence that `kcm.tasks.preparation.build` wrote."""
    return Summary(**read_description(folder)["summary"])


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
