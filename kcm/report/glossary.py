"""What each metric and term is called on the page, how it is written, what it means, and why it may be missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from kcm.report.formats import lost, number, percent, points

_FORMS: dict[str, Callable[[float | None], str]] = {
    "percent": percent,
    "points": points,
    "lost": lost,
    "number": number,
}


@dataclass(frozen=True)
class Metric:
    """A metric's words; `reason` is why it is missing when it is, `meaning` what a reader sees on hover."""

    label: str
    form: str = "number"
    meaning: str = ""
    reason: str = "not measured in this run"

    @property
    def show(self) -> Callable[[float | None], str]:
        """How its values are written."""
        return _FORMS[self.form]


@cache
def _written() -> dict[str, Any]:
    return yaml.safe_load(files("kcm.report").joinpath("glossary.yaml").read_text(encoding="utf-8"))


def metric(key: str) -> Metric:
    """The words of `key`; a metric that is not in the glossary goes by its own name."""
    written, (mode, _, rest) = _written(), key.partition(".")
    if mode in written["prompts"] and rest in written["prompt_metrics"]:
        fields = written["prompt_metrics"][rest]
        return Metric(**fields | {"label": f"{written['prompts'][mode]}: {fields['label']}"})
    return Metric(**written["metrics"].get(key, {"label": key.replace("_", " ")}))


def meaning_of(term: str) -> str:
    """The meaning of a term; empty if it needs none."""
    return str(_written()["terms"].get(term, ""))


def words() -> dict[str, str]:
    """The terms of this project, with their meanings."""
    return {str(word): str(meaning) for word, meaning in _written()["words"].items()}


def measures() -> dict[str, Metric]:
    """All metrics that have words, by their keys in a result."""
    return {key: metric(key) for key in _written()["metrics"]}
