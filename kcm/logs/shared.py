"""The prefix and the suffix that nearly all of some texts share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from os.path import commonprefix

QUORUM = 0.97  # share of the texts that must share it, so that a few foreign ones do not hide it


def shared_prefix(texts: Sequence[str]) -> str:
    """The longest prefix that a share `QUORUM` of the texts has, cut back to the end of a word.

    A prefix of marks alone, such as a quote, must be shared by all.
    """
    prefix = re.sub(r"\w+\Z", "", _longest(texts))
    if not re.search(r"[\w\n]", prefix) and not all(text.startswith(prefix) for text in texts):
        return ""
    return prefix


def shared_suffix(texts: Sequence[str]) -> str:
    """As `shared_prefix`, from the end."""
    return shared_prefix([text[::-1] for text in texts])[::-1]


def _longest(texts: Sequence[str]) -> str:
    """The longest prefix: of sorted texts, those that share a prefix are neighbours."""
    ordered, needed = sorted(texts), max(2, math.ceil(QUORUM * len(texts)))
    pairs = zip(ordered, ordered[needed - 1 :], strict=False)
    return max((commonprefix(pair) for pair in pairs), key=len, default="")  # noqa: RUF071 - of characters
