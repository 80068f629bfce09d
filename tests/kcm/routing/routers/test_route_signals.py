"""The gate `signals` of a router: curves that go their ways over what a table tells, never over a row's own label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from kcm.routing.config import RouteColumns
from kcm.routing.routers.signals import ROUTE_SIGNALS, fit_route, route_signals, score_route
from kcm.routing.table import RoutingTable, read_table

COLUMNS = RouteColumns(small_correct="s", large_correct="l", text="t", small_response="r", confidence="c")


@pytest.fixture
def table(table_file: Callable[..., Path]) -> RoutingTable:
    """Responses whose sum fails are wrong three times in four, others one time in four."""
    rng = np.random.default_rng(0)
    fails = rng.random(600) < 0.4
    path = table_file(
        s=(rng.random(600) < np.where(fails, 0.25, 0.75)).astype(int),
        l=[1] * 600,
        c=rng.random(600),
        t=[f"what is {n} and 5" for n in range(600)],
        r=[f"{n} + 5 = {n + 5 + 100 * wrong}" for n, wrong in enumerate(fails)],
    )
    return read_table(path, COLUMNS)


def test_a_sum_that_fails_speaks_against_a_response_and_is_read(table: RoutingTable) -> None:
    curves, _ = fit_route(table, np.zeros(600), seed=0)
    names = [signal.name for signal in curves.signals]
    assert {"sums that fail", "confidence"} <= set(names)
    assert "expected" not in names  # it does not vary
    for signal, (points_P, added_P) in zip(curves.signals, curves.drawn(), strict=True):
        assert (np.diff(points_P) > 0).all()
        assert (signal.direction * np.diff(added_P) >= -1e-9).all()
    added = dict(zip(names, (added_P for _, added_P in curves.drawn()), strict=True))
    assert np.ptp(added["sums that fail"]) > 1 > np.ptp(added["confidence"])


def test_out_of_fold_scores_promise_what_other_rows_keep(table: RoutingTable) -> None:
    first, second = table.select(np.arange(300)), table.select(np.arange(300, 600))
    curves, scores = fit_route(first, np.zeros(300), seed=0)
    kept = roc_auc_score(second.small_correct, score_route(curves, second, np.zeros(300)))
    assert kept > 0.65
    assert roc_auc_score(first.small_correct, scores) == pytest.approx(kept, abs=0.1)


def test_noise_is_not_learned_out_of_fold(table: RoutingTable) -> None:
    rng = np.random.default_rng(1)
    noise = table.select(np.arange(600))
    object.__setattr__(noise, "small_correct", rng.random(600) < 0.5)
    assert 0.43 < roc_auc_score(noise.small_correct, fit_route(noise, rng.random(600), seed=0)[1]) < 0.57


def test_a_person_reads_sixteen_curves_at_most_and_every_signal_can_be_told(table: RoutingTable) -> None:
    assert len(ROUTE_SIGNALS) <= 16
    assert set(route_signals(table, np.zeros(600))) == {signal.name for signal in ROUTE_SIGNALS}
