"""The scenario of a simulation: late labels, people's errors, and the order of rows."""

from __future__ import annotations

import difflib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from kcm.config import Config
from kcm.errors import ConfigError, DataError
from kcm.tasks.rows import SourceRow

Waves = Sequence[Sequence[str]]  # the late labels of each wave

TURNS = 2  # turns of a wave: the first learns its labels, the second certifies what it keeps


class Scenario(Config):
    """The behaviour of people and of the large model."""

    first: float = Field(0.5, gt=0, lt=1, description="Share of the known labels' rows that the first champion learns.")
    feedback: float = Field(0.1, ge=0, le=1, description="Share of items that callers label.")
    error: float = Field(0.05, ge=0, le=1, description="Share of these labels that are wrong.")
    large_error: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Share of the large model's answers that are wrong, if there are no recorded answers.",
    )


@dataclass(frozen=True)
class Script:
    """The rows of the first table, and the rows of the traffic before each turn."""

    first: list[SourceRow]
    periods: list[list[SourceRow]]


def script_of(rows: Mapping[str, Sequence[SourceRow]], waves: Waves, first: float, seed: int) -> Script:
    """The schedule of all rows: half of a wave's rows come in its first period, the rest in all later ones.

    The first table gets the share `first` of the rows with known labels. Raises ConfigError for late labels without
    rows and for labels named twice, DataError for too few rows.
    """
    late = [label for wave in waves for label in wave]
    if missing := [label for label in late if label not in rows]:
        nearest = difflib.get_close_matches(missing[0], rows, n=1)
        raise ConfigError(
            f"no row has the label {missing[0]!r}",
            where="--late",
            hint=f"Did you mean {nearest[0]!r}?" if nearest else "",
        )
    if len(set(late)) < len(late):
        raise ConfigError("a late label is named twice", where="--late")
    if len(rows) - len(late) < 2:
        raise ConfigError("fewer than two labels are left for the first champion", where="--late")
    generator = random.Random(seed)
    first_rows = _shuffled([row for label in rows if label not in late for row in rows[label]], generator)
    begin, num_periods = round(first * len(first_rows)), TURNS * len(waves)
    periods = [first_rows[begin + number :: num_periods] for number in range(num_periods)]
    for number, wave in enumerate(waves):
        arriving = _shuffled([row for label in wave for row in rows[label]], generator)
        half, arrival = len(arriving) // 2, TURNS * number
        later = range(arrival + 1, num_periods)
        periods[arrival] += arriving[:half]
        for place, period in enumerate(later):
            periods[period] += arriving[half + place :: len(later)]
    if not begin or not all(periods):
        raise DataError("too few rows for a first table and traffic", where="--table", hint="Name fewer waves")
    return Script(first_rows[:begin], [_shuffled(period, generator) for period in periods])


def _shuffled(rows: Sequence[SourceRow], generator: random.Random) -> list[SourceRow]:
    return generator.sample(rows, len(rows))
