"""What a service is told before it starts: how much traffic the next update needs, and what the audits cost."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.certification.ledger import look_delta
from kcm.certification.traffic import Traffic
from kcm.certification.window import fewest_audited, traffic_path
from kcm.config import parse_config
from pipelines.config import RunConfig
from pipelines.loop.plan import ServicePlan
from pipelines.store.files import Files
from pipelines.store.records import Control, StoredLedger
from tests.pipelines.runs import SIDES, SOURCE


def plan(folder: Path, call_rate: float = 0.5, **serve: Any) -> ServicePlan | None:
    values: dict[str, Any] = {
        "name": "n",
        "tasks": {"source": SOURCE},
        "storage_path": str(folder),
        "update": {},
    } | SIDES
    values |= {"serve": {"feedback": {"store_payloads": "text"}} | serve, "costs": {"large": {"per_call": 0.01}}}
    config = parse_config(RunConfig, values)
    assert config.update is not None
    bundle: Any = SimpleNamespace(
        policy=Policy(decision=KEEP_ALL), certificates={None: SimpleNamespace(call_rate=call_rate)}, metrics={}
    )
    return ServicePlan.of(config, config.update, bundle, Control(Files.at(folder)))


def test_the_plan_needs_what_the_test_of_a_window_needs(tmp_path: Path) -> None:
    """Promise: the number of units that is announced is the number that a window is refused for."""
    found = plan(tmp_path)
    assert found is not None
    for num_units in (found.units - 1, found.units):
        score, asked = np.zeros(num_units), np.zeros(num_units, dtype=bool)
        probability = np.full(num_units, 0.05)
        window = Traffic(score=score, asked=asked, probability=probability, disagrees=asked, floor=0.05)
        path = traffic_path(window, 0.02, look_delta(0.1, 1))
        assert (path.num_units >= path.fewest_units) == (num_units == found.units)


def test_requests_and_audits_follow_from_the_units(tmp_path: Path) -> None:
    found = plan(tmp_path)
    assert found is not None
    assert (found.units, found.requests, found.audits) == (
        3028,
        10094,
        253,
    )  # 3028 / .3; half of them kept, a 20th asked
    assert str(found).endswith("3,028 certify units; audits of 5% of the kept items ask 253 times, USD 2.53")


def test_later_looks_need_more(tmp_path: Path) -> None:
    """Promise: a lineage that has spent part of its delta is told what its next look needs."""
    first = plan(tmp_path)
    StoredLedger.of_lineage(Control(Files.at(tmp_path)), "n").look(0.1, "an earlier attempt")
    second = plan(tmp_path)
    assert first is not None
    assert second is not None
    assert second.units == fewest_audited(0.05, 0.02, look_delta(0.1, 2)) > first.units


def test_without_audits_no_update_can_certify(tmp_path: Path) -> None:
    assert plan(tmp_path, audit={"share": 0.0}) is None
