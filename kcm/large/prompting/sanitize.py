"""Sanitizing of untrusted text: it cannot close a mark, open a chat turn, or contain invisible characters."""

from __future__ import annotations

import re
import unicodedata

# Joiners of Persian, of Indic scripts and of emoji are invisible like the rest of their category, but carry meaning.
_JOINERS = frozenset("\u200c\u200d")
_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cs", "Cn"})

# Every tag of the angle kind (<|im_start|>, </s>, <start_of_turn>, <<SYS>>) starts with `<` and the next character.
_OPENS = re.compile(r"<(?=\S)")
_CLOSES = re.compile(r">(?=>)")
_BRACKETED = re.compile(r"\[(?=/?[A-Z_]{2,}\])")  # [INST], [/INST], [TOOL_CALLS]


def sanitized(text: str, max_chars: int) -> str:
    """The first `max_chars` characters of `text`, without control and invisible characters, and with tags broken up.

    A space is put behind every `<`, between every two `>`, and into the bracketed words that some models read as turns:
    neither the marks around the text nor a chat template's tokens can be spelled any more, whatever the model.
    """
    visible = "".join(map(_visible, text[:max_chars]))
    return _BRACKETED.sub("[ ", _CLOSES.sub("> ", _OPENS.sub("< ", visible)))


def _visible(character: str) -> str:
    if character in "\n\t" or character in _JOINERS:
        return character
    category = unicodedata.category(character)
    if category in ("Zl", "Zp") or character == "\r":
        return "\n"
    return "" if category in _INVISIBLE else character
