import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcm.report import formats

SHOWS = [formats.percent, formats.points, formats.lost, formats.number, formats.duration]


@pytest.mark.parametrize("show", SHOWS)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_a_dash(show, value) -> None:
    assert show(value) == "–"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formats.percent(0.7124), "71.2%"),
        (formats.percent(-0.00001), "0.0%"),
        (formats.points(-0.003), "−0.3"),
        (formats.points(-0.0001), "0.0"),
        (formats.lost(-0.003), "0.3 gained"),
        (formats.money(-1234.5, "EUR"), "−€1,234.50"),
        (formats.money(0.00234, "CHF"), "0.0023 CHF"),
        (formats.unsigned_points(0.01), "1 point"),
        (formats.unsigned_points(0.00093), "0.1 points"),
        (formats.exact_points(0.0005), "0.05 points"),
        (formats.interval([0.881, 0.912]), "88.1–91.2"),
        (formats.points_interval([-0.009, 0.002]), "−0.9 to +0.2"),
        (formats.number(-2.10449), "−2.104"),
        (formats.plural(1200, "row"), "1,200 rows"),
    ],
)
def test_numbers_read_well(written: str, expected: str) -> None:
    assert written == expected


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_part_is_never_rounded_to_none_or_all(share: float) -> None:
    assert formats.whole_percent(share) not in ("0%", "100%")


@pytest.mark.parametrize(("share", "said"), [(0.005, "less than 1%"), (0.995, "more than 99%"), (0.006, "1%")])
def test_shares_at_the_edge_of_rounding(share: float, said: str) -> None:
    assert formats.whole_percent(share) == said
