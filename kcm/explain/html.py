"""Explanations as HTML for notebooks; everything that a user wrote is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_SHADES = {True: "46, 125, 50", False: "198, 40, 40"}  # for and against the answer


def table_html(title: str, facts: Mapping[str, str]) -> str:
    """A small table of facts."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table><caption>{escape(title)}</caption>{rows}</table>"


def words_html(words: Sequence[tuple[str, float]]) -> str:
    """The words in their order, each shaded by its effect: green speaks for the answer, red against it."""
    most = max((abs(effect) for _, effect in words), default=0.0) or 1.0
    return " ".join(
        f"<span title='{effect:+.2f}' style='background:rgba({_SHADES[effect > 0]}, {0.6 * abs(effect) / most:.2f})'>"
        f"{escape(word)}</span>"
        for word, effect in words
    )
