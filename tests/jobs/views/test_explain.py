from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from jobs.views.explain import reasons_view
from kcm.explain.reasons import Contribution, Reasons

REASONS = Reasons(
    label=1,
    logit=3.0,
    baseline=0.0,
    base=2.5,
    contributions=(Contribution(feature=7, value=1.5, contribution=0.4, through=1, carried=0.4, slope=1.0),),
    rest=0.1,
    exact=True,
)


def shown(reasons: Reasons) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        for part in reasons_view("judge", reasons, ["no", "yes"]):
            console.print(part)
    return capture.get()


def test_a_logit_is_shown_as_the_sum_of_its_parts() -> None:
    rows = [line.split() for line in shown(REASONS).splitlines()]
    assert ["7", "+1.50", "+0.400"] in rows
    assert ["all", "others", "+0.100"] in rows
    assert ["class", "means,", "which", "no", "curve", "shows", "+2.500"] in rows


def test_a_network_that_adds_nothing_to_class_means_has_no_table_of_zeros() -> None:
    (nothing,) = REASONS.contributions
    text = shown(replace(REASONS, contributions=(replace(nothing, contribution=1e-6),), rest=0.0, logit=2.5))
    assert "judge: logit 2.50 of yes" in text
    assert "no curve adds anything" in text
    assert "+0.000" not in text
