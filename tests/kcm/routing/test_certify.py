"""A threshold on anybody's table: certified so that its promise holds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcm
from kcm.certification.ledger import Ledger
from kcm.config import parse_config
from kcm.errors import ConfigError
from kcm.routing.certify import certify_table, certifying_splits, with_splits
from kcm.routing.config import RequestConfig
from kcm.routing.table import RoutingTable


def table(num_rows: int, seed: int = 0, *, large: float = 0.9, **columns: Any) -> RoutingTable:
    rng = np.random.default_rng(seed)
    names = np.array([f"row {n}" for n in range(num_rows)], dtype=object)
    confidence = rng.random(num_rows)
    return RoutingTable(
        name=names,
        item=names,
        small_correct=rng.random(num_rows) < 0.5 + confidence / 2,
        large_correct=rng.random(num_rows) < large,
        large_error=np.zeros(num_rows, dtype=bool),
        confidence=confidence,
        **columns,
    )


def certify(rows: RoutingTable, ledger: Path | None = None, **options: Any) -> dict[str, Any]:
    request = parse_config(RequestConfig, {"epsilon": 0.05} | options, where="options")
    assert rows.confidence is not None
    splits = with_splits(rows, 0) if request.needs_validate else certifying_splits(rows, 0, credit_wins=True)
    result = certify_table(rows, splits, rows.confidence, request, Ledger(ledger) if ledger else None)
    json.dumps(result, allow_nan=False)
    return result


def test_epsilon_zero_draws_rows_and_credits_wins() -> None:
    """A small model that is clearly better is certified as no worse, by rows that another split has ordered."""
    result = certify(table(4000, large=0.6), epsilon=0.0)
    assert result["method"] == "net"
    assert result["decision"] != "escalate_all"
    assert result["bound"] <= 0
    assert result["num_validate_rows"] > 0
    with pytest.raises(ConfigError, match="needs mode net or auto"):
        certify(table(40), epsilon=0.0, mode="regret")


@pytest.mark.parametrize("num_rows", [1, 2, 40])
def test_too_few_rows_escalate_all_and_state_the_fewest(num_rows: int) -> None:
    """Promise: too few rows escalate all with a warning that states the fewest."""
    result = certify(table(num_rows))
    assert (result["decision"], result["valid"], result["bound"], result["call_rate"]) == (
        "escalate_all",
        True,
        0.0,
        1.0,
    )
    assert result["fewest_units"] in (45, 53)
    assert f"fewer than {result['fewest_units']}" in result["warnings"][0]


def test_failed_large_answer_counts_against_the_cascade() -> None:
    """Promise: an answer that the large model failed to give counts against the cascade."""
    rows = table(3000, large=0.9)
    failed = replace(rows, large_error=~rows.large_correct)
    assert certify(failed)["call_rate"] > certify(rows)["call_rate"]


@pytest.mark.parametrize("epsilon", [0.02, 0.05])
def test_no_split_keeps_what_an_exact_binomial_keeps(epsilon: float) -> None:
    """All rows certify, so the route keeps as much as an exact binomial test on all rows; a search keeps no more."""
    for seed in range(5):
        rows = table(800, seed, large=0.95)
        assert rows.confidence is not None
        exact = kcm.certify(rows.confidence, rows.small_correct, rows.large_correct, max_loss=epsilon)
        found = certify(rows, epsilon=epsilon)
        assert (found["num_units"], 1 - found["call_rate"]) == (800, pytest.approx(exact.kept))
        assert (found["method"], found["measured_on"]) == ("regret", "certify")
        assert certify(rows, epsilon=epsilon, max_loss=epsilon)["num_validate_rows"] > 0


def test_wins_are_credited_if_the_small_model_is_clearly_better() -> None:
    """A fifth of the rows chooses then, and all others may be kept, of which regret would lose many."""
    rows = table(1500, large=0.4)
    found = certify(rows)
    assert (found["decision"], found["method"], found["mode"]) == ("keep_all", "net", "auto")
    assert 200 < found["num_validate_rows"] < 400
    assert certify(rows, mode="regret")["decision"] != "keep_all"


def test_a_choice_by_wins_breaks_no_promise() -> None:
    """The true loss is just above epsilon at a threshold of .5; wins let the choice go either way."""
    false, chosen, rng = 0, 0, np.random.default_rng(0)
    for _ in range(300):
        score = rng.random(400)
        outcome = rng.random(400)
        lost, won = (score > 0.5) & (outcome < 0.106), (score < 0.5) & (outcome < 0.28)
        rows = replace(table(400), small_correct=~lost, large_correct=~won, confidence=score)
        found = certify(rows, epsilon=0.05, delta=0.2)
        chosen += found["num_validate_rows"] > 0
        kept_from = {"threshold": found["threshold"], "keep_all": 0.0, "escalate_all": 1.0}[found["decision"]]
        loss = 0.106 * min(1 - kept_from, 0.5) - 0.28 * max(0.5 - kept_from, 0.0)
        false += loss > 0.05
    assert 60 < chosen < 240
    assert false <= 300 * 0.2 + 3 * np.sqrt(300 * 0.2 * 0.8)


def test_other_seeds_splits_and_outcomes_are_other_looks(tmp_path: Path) -> None:
    """The digest covers all that decides a result; the identical request is free."""
    rows = table(400)
    changed = replace(rows, small_correct=rows.large_correct)
    looks = [certify(rows, tmp_path), certify(changed, tmp_path), certify(rows, tmp_path, max_loss=0.05)]
    looks += [
        certify(rows, tmp_path, seed=1),
        certify(replace(rows, group=rows.item), tmp_path),
        certify(rows, tmp_path),
    ]
    assert [look["look"] for look in looks] == [1, 2, 3, 4, 5, 1]


def test_without_a_ledger_a_note_says_so(tmp_path: Path) -> None:
    """The look is not recorded, and the result says it."""
    assert any("not recorded" in note for note in certify(table(400))["notes"])
    assert not any("not recorded" in note for note in certify(table(400), tmp_path)["notes"])
