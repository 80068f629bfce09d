import pytest

from kcm.report.figures import trials


def test_trials_stand_at_their_two_objectives(inputs, read_drawing) -> None:
    drawing = read_drawing(trials(inputs.trials))
    assert drawing.mark("KCM, trial 1") == pytest.approx((70, 0.90), abs=0.2)
    assert drawing.mark("KCM, trial 2: 40.0% saved, area 0.89") == pytest.approx((40, 0.89), abs=0.2)


def test_the_pareto_front_is_filled_and_joined(inputs, read_drawing) -> None:
    drawing = read_drawing(trials(inputs.trials))
    (other,) = drawing.marks("hollow")
    assert (other.findtext("title") or "").startswith("KCM, trial 2")
    (front,) = drawing.lines("kcm faint")
    assert len(front.attrib["points"].split()) == 2


def test_a_trial_without_a_score_is_counted_and_not_drawn(inputs, read_drawing) -> None:
    failed = inputs.trials[0] | {"number": 9, "area": None, "pareto": False}
    markup = trials([*inputs.trials, failed])
    assert len(read_drawing(markup).marks()) == 3
    assert "1 trial without a score is not drawn." in markup


def test_collaborators_have_their_own_fronts(inputs, read_drawing) -> None:
    other = inputs.trials[0] | {"collaborator": "mcm"}
    drawing = read_drawing(trials([*inputs.trials, other]))
    assert "MCM, Pareto front" in drawing.legend
    assert "MCM, other trials" not in drawing.legend


@pytest.mark.parametrize(
    ("tried", "said"),
    [([], "Tuning did not run."), ([{"area": None, "calls_saved": None}], "None of 1 trials has a score.")],
)
def test_nothing_to_draw_is_said(tried, said: str) -> None:
    assert said in trials(tried)
