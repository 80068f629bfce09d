"""Numbers as people read them, and the words of every metric and term; what was not measured is an en dash."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, TypeGuard

import yaml

MISSING = "–"
Bounds = Sequence[float | None] | None
_SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}


def known(value: Any) -> TypeGuard[float]:
    """Whether `value` is a number that can be shown: not None, not a bool, not NaN or infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_interval(bounds: Bounds) -> TypeGuard[Sequence[float]]:
    """Whether `bounds` is a pair of numbers that can be shown."""
    return bounds is not None and len(bounds) == 2 and all(map(known, bounds))


def percent(share: float | None, digits: int = 1) -> str:
    """0.7124 as `71.2%`."""
    return f"{_fixed(100 * share, digits)}%" if known(share) else MISSING


def whole_percent(share: float) -> str:
    """0.7124 as `71%`, without rounding to a none or an all that is not so."""
    text = percent(share, 0)
    if text == "0%" and share > 0:
        return "less than 1%"
    return "more than 99%" if text == "100%" and share < 1 else text


def points(difference: float | None, digits: int = 1) -> str:
    """-0.003 as `−0.3`, in percentage points and always signed (a zero is not)."""
    if not known(difference):
        return MISSING
    value = 100 * difference
    sign = "+" if value > 0 and not rounds_to_zero(value, digits) else ""
    return sign + _fixed(value, digits)


def lost(loss: float | None) -> str:
    """0.021 as `2.1 lost`, -0.003 as `0.3 gained`, in percentage points: no sign has to be read twice."""
    if not known(loss):
        return MISSING
    if rounds_to_zero(100 * loss, 1):
        return "0.0"
    return f"{abs(100 * loss):.1f} {'lost' if loss > 0 else 'gained'}"


def money(amount: float, currency: str) -> str:
    """1.416 and `USD` as `$1.42`, and `CHF` as `1.42 CHF`; two digits at least, so that small prices are not 0."""
    if abs(amount) >= 1e15:
        return f"{amount:.3g} {currency}"
    digits = 2 if abs(amount) >= 0.1 or amount == 0 else min(1 - math.floor(math.log10(abs(amount))), 9)
    text = f"{abs(amount):,.{digits}f}"
    sign, symbol = "−" if amount < 0 else "", _SYMBOLS.get(currency)
    return f"{sign}{symbol}{text}" if symbol else f"{sign}{text} {currency}"


def unsigned_points(difference: float) -> str:
    """A measured -0.0213 as `2.1 points`, 0.01 as `1 point`."""
    return exact_points(round(abs(difference), 3))


def exact_points(level: float) -> str:
    """A chosen 0.02 as `2 points`, 0.0005 as `0.05 points`."""
    text = f"{100 * level:.4g}"
    return f"{text} {'point' if text == '1' else 'points'}"


def interval(bounds: Bounds) -> str:
    """[0.881, 0.912] as `88.1–91.2`, in percent."""
    return "–".join(_fixed(100 * bound, 1) for bound in bounds) if is_interval(bounds) else MISSING


def points_interval(bounds: Bounds) -> str:
    """[-0.009, 0.002] as `−0.9 to +0.2`, in percentage points."""
    return " to ".join(points(bound) for bound in bounds) if is_interval(bounds) else MISSING


def number(value: float | None) -> str:
    """A plain number: counts with separators, anything else with four significant digits."""
    if not known(value):
        return MISSING
    text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return text.replace("-", "−")


def plural(count: int, noun: str) -> str:
    """2 and `row` as `2 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """252.3 as `4 min 12 s`."""
    if not known(seconds):
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def rounds_to_zero(value: float, digits: int) -> bool:
    """Whether `value` is written as a zero with so many digits."""
    return float(f"{value:.{digits}f}") == 0


def _fixed(value: float, digits: int) -> str:
    """With a true minus sign, and no sign before a zero."""
    return f"{abs(value) if rounds_to_zero(value, digits) else value:.{digits}f}".replace("-", "−")


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
    return Metric(**_written()["metrics"].get(key, {"label": key.replace("_", " ")}))


def meaning_of(term: str) -> str:
    """The meaning of a term; empty if it needs none."""
    return str(_written()["terms"].get(term, ""))


def measures() -> dict[str, Metric]:
    """All metrics that have words, by their keys in a result."""
    return {key: metric(key) for key in _written()["metrics"]}
