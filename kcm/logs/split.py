"""The rows of a template in two parts: those that train, and those that certify."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from kcm.logs.tally import LabelledText

TRAINED = 0.6  # share of the rows that train
_TIMED = 0.99  # share of the rows that must have a time for a split by time


@dataclass(frozen=True, eq=False)
class Split:
    """`ordered` are the rows with a time, by time, if `by_time`; otherwise all rows in the order of the log.

    With times, no row of `train` is later than a row of `certify`. Without, a draw splits the rows. It depends on the
    seed and on the contents alone, so another order of the log makes no difference.
    """

    ordered: tuple[LabelledText, ...]
    train: tuple[LabelledText, ...]
    certify: tuple[LabelledText, ...]
    by_time: bool

    @classmethod
    def of(cls, rows: Sequence[LabelledText], seed: int) -> Split:
        """Split some rows."""
        timed = sorted((row for row in rows if row.time is not None), key=lambda row: row.time or 0.0)
        by_time = len(timed) >= _TIMED * len(rows) and len({row.time for row in timed}) > 1
        ordered = timed if by_time else list(rows)
        drawn = ordered if by_time else _drawn(rows, seed)
        size = round(TRAINED * len(drawn))
        return cls(tuple(ordered), tuple(drawn[:size]), tuple(drawn[size:]), by_time)


def _drawn(rows: Sequence[LabelledText], seed: int) -> list[LabelledText]:
    """The rows in the order of a hash of their text, their label and their number among equal rows.

    Equal rows are drawn one by one, as calls to come are.
    """
    copies: Counter[tuple[str, str | None]] = Counter()
    keyed = []
    for row in rows:
        copies[row.text, row.label] += 1
        name = f"{seed}\0{copies[row.text, row.label]}\0{row.label}\0{row.text}"
        keyed.append((hashlib.sha256(name.encode(errors="surrogatepass")).digest(), row))
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]
