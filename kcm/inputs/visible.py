"""The visible part of a text from strangers: for a question to a model, for the name of a unit, and for a terminal."""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import AfterValidator

# Joiners of Persian, Indic scripts and emoji are invisible like the rest of their category, but carry meaning.
_JOINERS = frozenset("\u200c\u200d")
_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cs", "Cn"})


def visible(text: str) -> str:
    """The text without control and invisible characters; all line ends are line feeds."""
    if text.isprintable():
        return text
    return text.translate({ord(character): _visible(character) for character in {*text} if not character.isprintable()})


def shown(text: str) -> str:
    """The text as one line for a terminal: nothing in it moves the cursor or begins a line."""
    return visible(text).replace("\n", " ").replace("\t", " ")


def name(text: str) -> str:
    """The name of a label, a task or a model, which is printed and sent. Raises ValueError for what is not visible."""
    if shown(text) != text:
        raise ValueError(f"a name is one line without invisible characters, not {text!r}")
    return text


Name = Annotated[str, AfterValidator(name)]


def _visible(character: str) -> str:
    if character in "\n\t" or character in _JOINERS:
        return character
    category = unicodedata.category(character)
    if category in ("Zl", "Zp") or character == "\r":
        return "\n"
    return "" if category in _INVISIBLE else character
