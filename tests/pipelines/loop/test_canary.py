"""Promise: a challenger becomes the champion after all stages, or the champion answers everybody again at once."""

from typing import Any

import numpy as np
import pytest

from kcm.certification.monitoring.trial import Requests
from pipelines.loop import canary
from pipelines.loop.canary import Rollout, RolloutOutcome
from pipelines.loop.config import CanaryConfig
from pipelines.registry.champion import ReplacedError
from pipelines.registry.replicas import RefusedByServiceError
from pipelines.serve.log.database import LogUnavailableError
from pipelines.store.files import StorageError

CONFIG = CanaryConfig(decisions_per_stage=400)


@pytest.fixture(autouse=True)
def _limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that few decisions can prove."""
    monkeypatch.setattr(canary, "MAX_ERROR_RATE", 0.03)
    monkeypatch.setattr(canary, "MAX_SLOW_RATE", 0.08)


def requests(stages: list[int], **rates: float) -> Requests:
    rng = np.random.default_rng(len(stages))
    count = len(stages)
    failed, slow, lost = (rng.random(count) < rates.get(name, 0.0) for name in ("failed", "slow", "lost"))
    return Requests(
        stage=np.array(stages, int),
        num_items=np.ones(count, int),
        failed=failed,
        seconds=np.where(slow, 2.0, 0.1 + 0.01 * rng.random(count)),
        lost_low=lost.astype(float),
        lost_high=lost.astype(float),
        share=np.ones(count),
    )


class World:
    """A service and its log: a hundred decisions arrive whenever the trial sleeps; `rates` by stage."""

    def __init__(self, rates: dict[int, dict[str, float]] | None = None, per_sleep: int = 100) -> None:
        self.rates, self.per_sleep = rates or {}, per_sleep
        self.trials: list[tuple[int, float] | None] = []  # stage and share; None where a trial ended
        self.counts: dict[int, int] = {}
        self.now = 0.0
        self.refuses = False
        self.drops_at: int | None = None

    @property
    def stage(self) -> int | None:
        return self.trials[-1][0] if self.trials and self.trials[-1] else None

    def try_out(self, stage: int, share: float) -> None:
        if self.refuses:
            raise RefusedByServiceError("a replica dropped it: no such encoder")
        self.trials.append((stage, share))

    def dropped(self) -> str | None:
        return "it returned no numbers" if self.stage is not None and self.stage == self.drops_at else None

    def end(self) -> None:
        self.trials.append(None)

    def last_number(self) -> int:
        return 17

    def slowest(self, version: str, quantile: float) -> float:
        assert (version, quantile) == ("one", 0.99)
        return 0.11

    def read(self, after: int, challenger: str) -> Requests:
        assert (after, challenger) == (17, "two")
        parts = [requests([stage] * count, **self.rates.get(stage, {})) for stage, count in self.counts.items()]
        parts = parts or [requests([])]
        return Requests(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.stage is not None:
            self.counts[self.stage] = self.counts.get(self.stage, 0) + self.per_sleep

    def roll_out(self, disagreement: float = 0.03, **config: Any) -> RolloutOutcome:
        settings = CONFIG.model_copy(update=config)
        return Rollout("one", "two", settings, self, self, disagreement, clock=lambda: self.now, sleep=self.sleep).run()


def test_good_challenger_passes_all_stages_and_stays() -> None:
    """Promise: a good challenger goes through all stages and is left to the promotion."""
    world = World()
    outcome = world.roll_out()
    assert outcome.passed
    assert world.trials == [(1, 0.01), (2, 0.05), (3, 0.25), (4, 1.0)]
    assert [(each.stage, each.verdict) for each in outcome.stages] == [(stage, "pass") for stage in range(1, 5)]
    assert [each.num_decisions for each in outcome.stages] == [400, 400, 400, 400]


@pytest.mark.parametrize(
    ("rates", "stage", "named"),
    [
        ({1: {"failed": 0.3}}, 1, "errors"),
        ({2: {"slow": 0.5}}, 2, "slow"),
        ({3: {"lost": 0.3}}, 3, "disagreement"),
    ],
)
def test_what_its_traffic_refutes_ends_the_trial_at_once(
    rates: dict[int, dict[str, float]], stage: int, named: str
) -> None:
    world = World(rates)
    outcome = world.roll_out()
    assert (outcome.passed, world.trials[-1]) == (False, None)
    assert outcome.stages[-1].stage == stage
    assert outcome.stages[-1].num_decisions < CONFIG.decisions_per_stage  # it did not wait for the end of the stage
    assert named in outcome.reason


def test_what_is_undecided_at_the_end_of_a_stage_is_rolled_back() -> None:
    world = World({1: {"lost": 0.028}})
    outcome = world.roll_out()
    assert (outcome.passed, world.trials[-1]) == (False, None)
    assert "stage 1, with 1% of the callers, is undecided: disagreement" in outcome.reason


def test_allowed_disagreement_does_not_stop_a_challenger() -> None:
    """Promise: who may disagree often is not stopped for it unless it disagrees more."""
    often = {stage: {"lost": 0.2} for stage in range(1, 5)}
    assert not World(often).roll_out(disagreement=0.03).passed
    assert World(often).roll_out(disagreement=0.27).passed
    assert not World(often | {2: {"lost": 0.6}}).roll_out(disagreement=0.27).passed


def test_too_little_traffic_ends_in_a_rollback_that_says_so() -> None:
    world = World(per_sleep=0)
    outcome = world.roll_out(timeout_s=100.0)
    assert (outcome.passed, world.trials[-1]) == (False, None)
    assert "too little traffic: 0 decisions" in outcome.reason


@pytest.mark.parametrize("stage", [1, 2])
def test_a_challenger_that_the_service_drops_is_rolled_back(stage: int) -> None:
    world = World()
    world.drops_at = stage
    outcome = world.roll_out()
    assert (outcome.passed, world.trials[-1]) == (False, None)
    assert "the service dropped it: it returned no numbers" in outcome.reason


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), LogUnavailableError("fails"), StorageError("fails"), ReplacedError("by an operator")],
    ids=["killed", "log", "storage", "replaced"],
)
def test_impossible_trial_keeps_the_champion_without_verdict(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Promise: a trial that cannot go on leaves the champion alone and is no verdict."""
    world = World()

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(canary, "judge", fail)
    with pytest.raises(type(error)):
        world.roll_out()
    assert world.trials[-1] is None
