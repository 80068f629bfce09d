"""The choice of settings: the same trials for every network, scored on the validate rows of held-out streams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

LEARNING_RATE = "train.learning_rate"
RATES = (LEARNING_RATE, "train.sgd_rate")  # of AdamW, of SGD


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


def sensitivity(trials: Iterable[Trial], keys: Sequence[str] = RATES) -> dict[str, dict[str, float]]:
    """By place and learning rate, the best score over all other values; `keys` are the names that a rate has.

    A place whose trials vary none of them is left out.
    """
    found: dict[str, dict[str, float]] = {}
    for trial in trials:
        for rate in (trial.values[key] for key in keys if key in trial.values):
            scores = found.setdefault(trial.place, {})
            scores[f"{rate:g}"] = max(trial.score, scores.get(f"{rate:g}", trial.score))
    return found
