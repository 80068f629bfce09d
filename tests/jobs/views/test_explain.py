from rich.console import Console

from jobs.views.explain import reasons_view
from kcm.explain.explanation import Contribution, Reasons

REASONS = Reasons(
    label=1,
    logit=3.0,
    baseline=0.0,
    base=2.5,
    contributions=(
        Contribution(
            feature=7, value=1.5, contribution=0.4, through=1, carried=0.4, slope=1.0, name="pixel 7", word="[b]x"
        ),
    ),
    rest=0.1,
    exact=True,
    num_others=63,
    unlisted=0.2,
)


def test_a_logit_is_shown_as_the_sum_of_its_parts() -> None:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(*reasons_view("judge", REASONS, ["no", "yes"]), sep="\n")
    rows = [line.split() for line in capture.get().splitlines()]
    assert ["pixel", "7", "[b]x", "+1.50", "+0.400"] in rows
    assert ["63", "others,", "20.0%", "of", "all", "by", "size", "+0.100"] in rows
    assert ["class", "means,", "which", "no", "curve", "shows", "+2.500"] in rows
