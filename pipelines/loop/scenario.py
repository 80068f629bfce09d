"""What a simulation plays: which labels come late, how people err, and which rows are sent when."""

from __future__ import annotations

import difflib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kcm.errors import ConfigError, DataError
from kcm.tasks.rows import SourceRow

TURNS = 2  # of a wave: the first learns its labels, the second certifies what it keeps


@dataclass(frozen=True)
class Scenario:
    """The labels that come late, wave by wave, and how people and the large model behave.

    `first` is the share of the known labels' rows that the first champion is made of. Callers label `feedback` of the
    items; `error` of these labels are wrong, and `large_error` of the large model's answers that are not recorded.
    """

    waves: Sequence[Sequence[str]]
    first: float = 0.5
    feedback: float = 0.1
    error: float = 0.05
    large_error: float = 0.01


@dataclass(frozen=True)
class Script:
    """The rows of the first table, and those of the traffic before each turn."""

    first: list[SourceRow]
    periods: list[list[SourceRow]]


def script_of(rows: Mapping[str, Sequence[SourceRow]], scenario: Scenario, seed: int) -> Script:
    """The rows of every label shared out: half of a wave comes in its first period, the rest in all later ones.

    Raises ConfigError for late labels that there are no rows of, or that are named twice, DataError for too few rows.
    """
    late = [label for wave in scenario.waves for label in wave]
    if missing := [label for label in late if label not in rows]:
        nearest = difflib.get_close_matches(missing[0], rows, n=1)
        raise ConfigError(
            f"no row has the label {missing[0]!r}",
            where="--late",
            hint=f"Did you mean {nearest[0]!r}?" if nearest else "",
        )
    if len(set(late)) < len(late):
        raise ConfigError("a label comes late twice", where="--late")
    if len(rows) - len(late) < 2:
        raise ConfigError("fewer than two labels are known at first", where="--late")
    drawn = random.Random(seed)
    known = _shuffled([row for label in rows if label not in late for row in rows[label]], drawn)
    begin, num_periods = round(scenario.first * len(known)), TURNS * len(scenario.waves)
    periods = [known[begin + number :: num_periods] for number in range(num_periods)]
    for number, wave in enumerate(scenario.waves):
        arriving = _shuffled([row for label in wave for row in rows[label]], drawn)
        half, arrival = len(arriving) // 2, TURNS * number
        later = range(arrival + 1, num_periods)
        periods[arrival] += arriving[:half]
        for place, period in enumerate(later):
            periods[period] += arriving[half + place :: len(later)]
    if not begin or not all(periods):
        raise DataError("too few rows for a first table and traffic", where="--table", hint="Name fewer waves")
    return Script(known[:begin], [_shuffled(period, drawn) for period in periods])


def _shuffled(rows: Sequence[SourceRow], drawn: random.Random) -> list[SourceRow]:
    return drawn.sample(rows, len(rows))
