import math
import re

from hypothesis import assume, example, given
from hypothesis import strategies as st

from kcm.report.drawing.plot import MAX_POINTS, Axis, Plot, drawable, round_ticks

ENDS = st.floats(-1e6, 1e6)


@given(ENDS, ENDS)
def test_ticks_are_evenly_spaced_round_numbers_inside_the_axis(low: float, high: float) -> None:
    assume(high - low > 1e-6 * max(abs(low), abs(high), 1))
    ticks = round_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    step = ticks[1] - ticks[0]
    assert all(low - 1e-6 * step <= tick <= high + 1e-6 * step for tick in ticks)
    leading = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(leading - digit) for digit in (1, 2, 5)) < 1e-3


@given(st.lists(st.floats(-1e3, 1e3), min_size=1))
@example([-1000.0, -999.9999999999999])  # neighbours among floats: no number lies between them
def test_an_axis_has_room_around_its_values(values: list[float]) -> None:
    axis = Axis.over("", values, str)
    assert axis.low < min(values) <= max(values) < axis.high
    assert 0 < axis.share(min(values)) <= axis.share(max(values)) < 1


def test_values_outside_the_axis_are_drawn_at_its_ends() -> None:
    axis = Axis("", 0.0, 10.0, [])
    assert (axis.share(-5), axis.share(2.5), axis.share(50)) == (0, 0.25, 1)


def test_up_is_more_and_right_is_more() -> None:
    axis = Axis("", 0.0, 1.0, [])
    plot = Plot(axis, axis)
    assert plot.x(0.2) < plot.x(0.8)
    assert plot.y(0.8) < plot.y(0.2)


def test_a_long_line_is_drawn_with_few_points_and_both_ends() -> None:
    axis = Axis("", 0.0, 1.0, [])
    plot = Plot(axis, axis)
    plot.line([(index / 99_999, 0.5) for index in range(100_000)], "kcm")
    found = re.search(r'polyline points="([^"]*)"', plot.svg("a line"))
    assert found
    drawn = found.group(1).split()
    assert len(drawn) == MAX_POINTS
    assert (drawn[0], drawn[-1]) == tuple(f"{plot.x(x):.1f},{plot.y(0.5):.1f}" for x in (0.0, 1.0))


def test_only_points_with_two_finite_coordinates_are_drawable() -> None:
    xs = [3.0, math.inf, None, 1.0, 2.0]
    ys = [0.3, 0.1, 0.2, 0.1, math.nan]
    assert drawable(xs, ys) == [(1.0, 0.1), (3.0, 0.3)]


def test_a_legend_says_a_thing_once() -> None:
    axis = Axis("", 0.0, 1.0, [])
    plot = Plot(axis, axis)
    plot.explain("frontier", "kcm", "line")
    plot.explain("frontier", "kcm", "line")
    assert plot.legend().count("frontier") == 1
