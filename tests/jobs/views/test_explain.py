from rich.console import Console, RenderableType

from jobs.views.explain import rates_view, reasons_view
from kcm.explain.explanation import Contribution, Reasons
from kcm.explain.gate import LabelRates

REASONS = Reasons(
    label=1,
    logit=3.0,
    baseline=0.0,
    base=2.5,
    contributions=(
        Contribution(feature=7, value=1.5, contribution=0.4, through=1, carried=0.4, slope=1.0, name="pixel 7"),
    ),
    rest=0.1,
    exact=True,
)


def printed(*parts: RenderableType) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return capture.get()


def shown(reasons: Reasons) -> str:
    return printed(*reasons_view("judge", reasons, ["no", "yes"]))


def test_a_logit_is_shown_as_the_sum_of_its_parts() -> None:
    rows = [line.split() for line in shown(REASONS).splitlines()]
    assert ["pixel", "7", "+1.50", "+0.400"] in rows
    assert ["all", "others", "+0.100"] in rows
    assert ["class", "means,", "which", "no", "curve", "shows", "+2.500"] in rows


def rates(count: int) -> list[LabelRates]:
    return [LabelRates(f"[label] {number}", 0.5, 0.25, number / 10) for number in range(count)]


def test_rates_of_few_labels_are_all_shown() -> None:
    """Promise: the rates of few labels are all told and the answer is marked."""
    labels = rates(12)
    text = printed(*rates_view(labels, labels[3]))
    assert [each.label in text for each in labels] == [True] * 12
    assert "[label] 3 (this answer) 50.0% 25.0% +0.30" in " ".join(text.split())
    assert "--json" not in text


def test_rates_of_many_labels_show_the_ends_and_the_answer() -> None:
    """Promise: of many labels the ends are told and the answer and where the rest is."""
    labels = rates(150)
    text = printed(*rates_view(labels, labels[70]))
    told = [number for number in range(150) if f"[label] {number} " in text]
    assert told == [0, 1, 2, 3, 4, 5, 70, 144, 145, 146, 147, 148, 149]
    assert "13 of 150 labels, all of them in --json FILE" in " ".join(text.split())
