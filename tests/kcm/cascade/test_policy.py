"""The policy: decisions, their JSON, and who answers which row."""

import math

import pytest
from pydantic import ValidationError

from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL, POLICY_FILE, Decision, Policy
from kcm.errors import ArtefactError, ConfigError


def _at(threshold):
    return Decision(decision="threshold", threshold=threshold)


@pytest.mark.parametrize(
    "bad",
    [
        {"decision": "threshold"},
        {"decision": "keep_all", "threshold": 1.0},
        {"decision": "threshold", "threshold": math.inf},
        {"decision": "threshold", "threshold": math.nan},
        {"decision": "sometimes"},
    ],
)
def test_a_decision_that_contradicts_itself_is_refused(bad):
    with pytest.raises(ValidationError):
        Decision.model_validate(bad)


@pytest.mark.parametrize(
    ("decision", "kept"), [(_at(1.0), [False, False, True]), (KEEP_ALL, [True] * 3), (ESCALATE_ALL, [False] * 3)]
)
def test_one_decision_keeps_scores_above_it_for_any_task(decision, kept):
    policy = Policy(decision=decision)
    assert policy.scope == "global"
    for tasks in (None, ["a", None, "b"]):
        assert policy.keep([0.9, 1.0, 1.1], tasks).tolist() == kept


def test_a_request_follows_its_task_where_it_carries_one():
    policy = Policy(decision=_at(0.0), task_decisions={"strict": _at(2.0), "never": ESCALATE_ALL})
    tasks = ["strict", "never", "unknown", None]
    assert policy.scope == "per_task"
    assert policy.keep([1.0] * 4, tasks).tolist() == [False, False, True, True]
    assert policy.keep([3.0] * 4, tasks).tolist() == [True, False, True, True]
    assert policy.keep([1.0] * 4).tolist() == [True] * 4


def test_policy_round_trips_and_bad_file_is_named(tmp_path) -> None:
    policy = Policy(task_decisions={"Ä": Decision.of(0.25)}, decision=KEEP_ALL, temperature=1e-9)
    policy.save(tmp_path)
    assert Policy.load(tmp_path) == policy
    file = tmp_path / POLICY_FILE
    file.write_text(file.read_text().replace('"gate"', '"gte"'))
    with pytest.raises(ConfigError, match=r"unknown key 'gte'.*policy\.json"):
        Policy.load(tmp_path)
    file.write_text("{")
    with pytest.raises(ArtefactError, match=r"no policy can be read.*policy\.json"):
        Policy.load(tmp_path)
