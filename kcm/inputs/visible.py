"""The visible part of a text from strangers: a question to a model has no other, and a unit is named by it."""

from __future__ import annotations

import unicodedata

# Joiners of Persian, Indic scripts and emoji are invisible like the rest of their category, but carry meaning.
_JOINERS = frozenset("\u200c\u200d")
_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cs", "Cn"})


def visible(text: str) -> str:
    """The text without control and invisible characters; all line ends are line feeds."""
    if text.isprintable():
        return text
    return text.translate({ord(character): _visible(character) for character in {*text} if not character.isprintable()})


def _visible(character: str) -> str:
    if character in "\n\t" or character in _JOINERS:
        return character
    category = unicodedata.category(character)
    if category in ("Zl", "Zp") or character == "\r":
        return "\n"
    return "" if category in _INVISIBLE else character
