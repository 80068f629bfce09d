import pytest

from kcm.cascade.gate import DEFERRAL
from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL, Decision, Policy
from kcm.cascade.scores import SCORES
from kcm.report.text import words


def test_the_headline_of_an_ordinary_run(result) -> None:
    assert words.headline(result) == (
        "KCM answers 71% of the inputs itself and loses 0.3 points against the large model alone"
        " (95% interval of the difference: −0.9 to +0.2)."
        " With a probability of at least 90% the loss is at most 2 points."
    )


def test_a_gain_is_called_a_gain(result) -> None:
    result["kcm"]["overall"] |= {"difference": 0.012, "difference_interval": [0.002, 0.022]}
    assert "gains 1.2 points over the large model alone" in words.headline(result)


def test_a_difference_that_rounds_to_zero_is_neither_loss_nor_gain(result) -> None:
    result["kcm"]["overall"] |= {"difference": -0.0003}
    assert "is as accurate as the large model alone" in words.headline(result)


def test_escalating_everything_is_said_with_its_reason(result) -> None:
    result["certificate"] |= {"decision": "escalate_all", "threshold": None, "reason": "90 rows are too few."}
    headline = words.headline(result)
    assert headline.startswith("KCM sends every input to the large model: no threshold could be certified")
    assert headline.endswith("at least 90%: 90 rows are too few.")


def test_an_invalid_certificate_promises_nothing(result) -> None:
    result["certificate"] |= {"valid": False, "reason": "the split was read before"}
    assert words.headline(result).endswith("The loss is not certified: the split was read before.")


def test_a_run_without_a_certificate_promises_nothing(result) -> None:
    del result["certificate"]
    assert words.headline(result).endswith("The loss is not certified.")


@pytest.mark.parametrize(("call_rate", "kept"), [(0.0, "every input"), (1.0, "no input"), (0.001, "more than 99% of")])
def test_all_and_nothing_are_words(result, call_rate: float, kept: str) -> None:
    result["kcm"]["overall"]["call_rate"] = call_rate
    assert f"answers {kept}" in words.headline(result)


def test_unmeasured_accuracy_is_not_claimed(result) -> None:
    result["kcm"]["overall"] |= {"difference": None, "call_rate": None}
    assert words.headline(result).startswith(
        "KCM answers an unmeasured share of the inputs itself; its accuracy was not compared with the large model's."
    )


def test_a_confidence_close_to_one_is_not_rounded_to_one() -> None:
    assert words.confidence_words({"delta": 0.001}) == "99.9%"


@pytest.mark.parametrize(("delta", "said"), [(0.1, "90%"), (0.05, "95%"), (0.01216, "98.7%"), (0.3, "70%")])
def test_confidence_is_rounded_down(delta: float, said: str) -> None:
    assert words.confidence_words({"delta": delta}) == said


def test_decisions_of_tasks_share_one_promise(result) -> None:
    result["certificate"] |= {"delta": 0.02, "tasks": {task: {"delta": 0.02, "valid": True} for task in "abcd"}}
    assert words.headline(result).endswith(
        "With a probability of at least 90% the loss is at most 2 points in every task with a threshold of its own,"
        " and over all other inputs."
    )


def test_escalating_all_but_one_task_is_not_escalating_everything(result) -> None:
    keeps = {"decision": "threshold", "threshold": 1.0, "delta": 0.1, "valid": True}
    result["certificate"] |= {"decision": "escalate_all", "threshold": None, "tasks": {"movies": keeps}}
    assert words.headline(result).startswith("KCM answers 71% of the inputs itself")


def test_a_deployed_mcm_has_the_headline(result) -> None:
    turned = {"mcm": result["mcm"], "kcm": result["kcm"], "certificate": result["certificate"]}
    assert words.headline(turned).startswith("MCM answers 64% of the inputs itself")
    assert words.control(turned).startswith("KCM, the control with KANs in place of MLPs, answers 71%")
    del turned["kcm"]
    assert words.control(turned) == "This run has no KCM, so there is no control to compare MCM with."


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"decision": "threshold", "threshold": 2.1044}, "keep above 2.104"),
        ({"decision": "keep_all", "threshold": None}, "keep all"),
        ({}, "–"),
    ],
)
def test_decisions_are_words(values, said: str) -> None:
    assert words.decision(values) == said


def test_thresholds_per_task_are_told_beside_the_curve(result) -> None:
    assert "Thresholds per task" not in words.frontier(result)
    result["kcm"]["policy"]["task_decisions"] = {"movies": {"decision": "keep_all"}}
    assert "Thresholds per task may leave the curve" in words.frontier(result)


def test_a_cascade_that_costs_more_is_told(result) -> None:
    result["kcm"]["overall"]["cost_saved"] = -0.359
    (notice,) = words.notices(result)
    assert notice.startswith("The cascade costs 35.9% more than the large model alone")


def test_the_control_is_named_or_missed(result) -> None:
    assert "answers 64% of the inputs itself and loses 0.7 points" in words.control(result)
    del result["mcm"]
    assert words.control(result) == "This run has no MCM, so there is no control to compare KCM with."


def test_an_ordinary_run_has_no_notices(result) -> None:
    assert words.notices(result) == []


@pytest.mark.parametrize(("small", "said"), [(0.93, "more accurate than"), (0.92, "as accurate as")])
def test_a_small_model_that_is_no_worse_is_told(result, small: float, said: str) -> None:
    result["kcm"]["overall"]["small_accuracy"] = small
    (notice,) = words.notices(result)
    assert f"is {said} the large model (92.0%)" in notice
    assert "Never escalating" in notice


def test_a_test_loss_above_the_certified_one_is_told(result) -> None:
    result["kcm"]["overall"]["difference"] = -0.031
    (notice,) = words.notices(result)
    assert "loses 3.1 points, more than the certified 2 points" in notice


def test_a_test_loss_is_not_held_against_a_certificate_that_is_not_there(result) -> None:
    result["kcm"]["overall"]["difference"] = -0.031
    result["certificate"]["valid"] = False
    assert words.notices(result) == []


@pytest.mark.parametrize(
    ("count", "said"),
    [(1, "1 row could not be used and was left out."), (1200, "1,200 rows could not be used and were left out.")],
)
def test_bad_rows_are_told(result, count: int, said: str) -> None:
    result["bad_rows"] = count
    assert words.notices(result) == [said]


def test_forgetting_names_the_task_that_lost_the_most(result) -> None:
    said = words.forgetting(result, ["reviews", "movies", "editorials"])
    assert said == "KCM: reviews lost the most, 4 points. MCM: reviews lost the most, 9 points."


def test_learning_without_loss_is_said(result) -> None:
    del result["mcm"]
    result["kcm"]["accuracy_matrix"] = [[0.8, 0.5], [0.81, 0.9]]
    assert words.forgetting(result, ["a", "b"]) == "KCM: no task lost accuracy."


def test_reliability_does_not_judge_by_a_handful_of_rows() -> None:
    bins = [
        {"confidence": 0.5, "accuracy": 0.0, "count": 1},
        {"confidence": 0.8, "accuracy": 0.7, "count": 400},
        {"confidence": 0.95, "accuracy": 0.94, "count": 600},
    ]
    assert words.reliability({"kcm": bins}).startswith("KCM is furthest off where it is 80% sure: it is right 70%")


def test_trials_without_a_score_are_counted() -> None:
    tried = [{"calls_saved": 0.5, "area": 0.9}, {"calls_saved": 0.7, "area": 0.8}, {"calls_saved": None, "area": None}]
    said = words.trials(tried)
    assert said.startswith("3 trials on validate. At the loss that tuning allows, the best saves 70.0% of the calls.")
    assert said.endswith("1 trial without a score is not drawn.")


def test_a_policy_is_told_in_sentences() -> None:
    policy = Policy(
        gate="deferral",
        temperature=1.25,
        deferral_weight=0.1,
        decision=Decision(decision="threshold", threshold=-0.5),
        task_decisions={"tweets": KEEP_ALL},
        prompt="hard",
        on_large_failure="error",
    )
    assert words.policy(policy.model_dump(mode="json")) == (
        "The gate score is an estimate of what a call to the large model would gain, at a temperature of 1.25, a call"
        " priced at 0.1. The small model answers what scores above −0.5, the large model the rest. Requests that carry"
        " one of these tasks follow its own decision: tweets: keep all. The large model chooses among the labels that"
        " the small one cannot be left alone with. While the large model fails, requests that need it are refused."
    )


@pytest.mark.parametrize("gate", [*SCORES, DEFERRAL])
@pytest.mark.parametrize("decision", [KEEP_ALL, ESCALATE_ALL])
def test_every_gate_and_decision_has_its_words(gate: str, decision: Decision) -> None:
    told = words.policy(Policy(gate=gate, decision=decision).model_dump(mode="json"))
    assert "answers every input. The large model is shown the task prompt alone." in told
