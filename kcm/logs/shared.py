"""The prefix and the suffix that nearly all of some texts share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

QUORUM = 0.97  # share of the texts that must share it, so that a few foreign ones do not hide it


def shared_prefix(texts: Sequence[str]) -> str:
    """The longest prefix that a share `QUORUM` of the texts has, cut back to the end of a word.

    A prefix of marks alone, such as a quote, must be shared by all.
    """
    prefix = re.sub(r"\w+\Z", "", _grown(texts))
    if not re.search(r"[\w\n]", prefix) and not all(text.startswith(prefix) for text in texts):
        return ""
    return prefix


def shared_suffix(texts: Sequence[str]) -> str:
    """As `shared_prefix`, from the end."""
    return shared_prefix([text[::-1] for text in texts])[::-1]


def _grown(texts: Sequence[str]) -> str:
    """Character by character, each time with the texts that still agree; all of the texts are longer than it."""
    members, needed = list(texts), max(2, QUORUM * len(texts))
    prefix = ""
    while members:
        letters = Counter(text[len(prefix)] for text in members if len(text) > len(prefix))
        if not letters:
            break
        letter, votes = letters.most_common(1)[0]
        if votes < needed:
            break
        step = _run(members, prefix + letter, needed)
        members = [text for text in members if text.startswith(step)]
        prefix = step
    return prefix


def _run(members: Sequence[str], prefix: str, needed: float) -> str:
    """`prefix`, longer by as much of one member as enough members have: fixed prompts are thousands of characters."""
    first = next(text for text in members if text.startswith(prefix))
    size = 1
    while len(first) > len(prefix) + size and sum(text.startswith(first[: len(prefix) + size]) for text in members) >= (
        needed
    ):
        prefix = first[: len(prefix) + size]
        size *= 2
    return prefix
