"""The choice of settings: the same trials for every network, scored on the validate rows of held-out streams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

LEARNING_RATE = "train.learning_rate"


@dataclass(frozen=True)
class Trial:
    """One setting for a place, as `replay@2/kan`, and its score: mean average accuracy over held-out streams."""

    place: str
    values: Mapping[str, Any]
    score: float


def trials_of(space: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of a space {dotted key: choices}, such as {"train.learning_rate": [0.001, 0.003]}."""
    return [dict(zip(space, values, strict=True)) for values in product(*space.values())]


def overrides_of(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Dotted keys as the sections of a setting."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    return sections


def best_overrides(trials: Iterable[Trial]) -> dict[str, dict[str, dict[str, Any]]]:
    """The best trial of every place, as settings; the first of equals."""
    best: dict[str, Trial] = {}
    for trial in trials:
        if trial.place not in best or trial.score > best[trial.place].score:
            best[trial.place] = trial
    return {place: overrides_of(trial.values) for place, trial in best.items()}


def sensitivity(trials: Iterable[Trial], key: str = LEARNING_RATE) -> dict[str, dict[str, float]]:
    """By place and value of `key`, the best score over all other values.

    A place whose trials do not vary `key` is left out.
    """
    found: dict[str, dict[str, float]] = {}
    for trial in trials:
        if key not in trial.values:
            continue
        scores = found.setdefault(trial.place, {})
        value = f"{trial.values[key]:g}"
        scores[value] = max(trial.score, scores.get(value, trial.score))
    return found
