"""Promise: a challenger becomes the champion after all stages, or the champion answers everybody again at once."""

from typing import Any

import numpy as np
import pytest

from kcm.certification.monitoring.trial import Requests
from pipelines.loop import canary
from pipelines.loop.canary import Rollout
from pipelines.loop.config import CanaryConfig
from pipelines.registry.champion import ReplacedError
from pipelines.registry.replicas import RefusedByServiceError
from pipelines.serve.log.database import LogUnavailableError
from pipelines.store.files import StorageError

CONFIG = CanaryConfig(decisions_per_stage=400, timeout_s=3600.0)


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

    def __init__(
        self,
        rates: dict[int, dict[str, float]] | None = None,
        per_sleep: int = 100,
        *,
        refuses: bool = False,
        drops_at: int | None = None,
    ) -> None:
        self.rates, self.per_sleep, self.refuses, self.drops_at = rates or {}, per_sleep, refuses, drops_at
        self.trials: list[tuple[int, float] | None] = []  # stage and share; None where a trial ended
        self.counts: dict[int, int] = {}
        self.now = 0.0
        self.rollout: Rollout

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

    def roll_out(self, disagreement: float = 0.03, **config: Any) -> str | None:
        """Why the trial stopped the challenger; None if it passed."""
        settings = CONFIG.model_copy(update=config)
        self.rollout = Rollout(
            "one", "two", settings, self, self, disagreement, clock=lambda: self.now, sleep=self.sleep
        )
        return self.rollout.run()


def test_good_challenger_passes_all_stages_and_stays() -> None:
    """Promise: a good challenger goes through all stages and is left to the promotion."""
    world = World()
    assert world.roll_out() is None
    assert world.trials == [(1, 0.01), (2, 0.05), (3, 0.25), (4, 1.0)]
    found = [(each.stage, each.verdict, each.num_decisions) for each in world.rollout.stages]
    assert found == [(stage, "pass", 400) for stage in range(1, 5)]


STOPPED: dict[str, tuple[World, str]] = {
    "failed": (World({1: {"failed": 0.3}}), "stage 1, with 1% of the callers: errors"),
    "slow": (World({2: {"slow": 0.5}}), "stage 2, with 5% of the callers: slow"),
    "lost": (World({3: {"lost": 0.3}}), "stage 3, with 25% of the callers: disagreement"),
    "undecided": (World({1: {"lost": 0.028}}), "stage 1, with 1% of the callers, is undecided: disagreement"),
    "no traffic": (World(per_sleep=0), "too little traffic: 0 decisions"),
    "dropped first": (World(drops_at=1), "the service dropped it: it returned no numbers"),
    "dropped later": (World(drops_at=2), "the service dropped it: it returned no numbers"),
    "refused": (World(refuses=True), "a replica dropped it: no such encoder"),
}


@pytest.mark.parametrize("name", STOPPED)
def test_a_bad_challenger_is_rolled_back_with_the_reason(name: str) -> None:
    """Promise: after a trial that does not pass, the champion answers everybody."""
    world, reason = STOPPED[name]
    assert reason in (world.roll_out() or "")
    assert world.trials[-1] is None


def test_what_its_traffic_refutes_ends_the_trial_at_once() -> None:
    world = World({3: {"lost": 0.3}})
    world.roll_out()
    assert world.rollout.stages[-1].num_decisions < CONFIG.decisions_per_stage  # not at the end of the stage


def test_allowed_disagreement_does_not_stop_a_challenger() -> None:
    """Promise: who may disagree often is not stopped for it unless it disagrees more."""
    often = {stage: {"lost": 0.2} for stage in range(1, 5)}
    assert World(often).roll_out(disagreement=0.03)
    assert World(often).roll_out(disagreement=0.27) is None
    assert World(often | {2: {"lost": 0.6}}).roll_out(disagreement=0.27)


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
