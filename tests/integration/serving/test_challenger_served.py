"""A challenger beside the champion in a real service: tried out, promoted and rolled back under load."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.commands.serving.serving import Site
from jobs.models import served_folder
from kcm.api.cascade import load_cascade
from kcm.bundle.answers import Answer, Input
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.config import load_config
from kcm.errors import KcmError
from kcm.inputs.content import Content
from pipelines._ray_private import end_serve
from pipelines.config import RunConfig
from pipelines.loop.config import CanaryConfig
from pipelines.loop.promotion.canary import roll_out
from pipelines.serve.deploy.deployment import RunningService, change_release, current_release, deploy
from pipelines.serve.deploy.haproxy import free_port
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.tables import DECISIONS
from pipelines.serve.log.trial import TrialLog
from pipelines.serve.release import Challenger, Release
from tests.integration.serving.load import Load

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

REVIEWS = Path(__file__).parents[3] / "jobs" / "configs" / "reviews.yaml"
KEYS = {f"caller-{number}": f"key of caller {number}" for number in range(12)}
ITEMS = 3  # of a request
NUM_PROMOTIONS, NUM_ROLLBACKS = (int(each) for each in os.environ.get("KCM_RELEASE_CHANGES", "4,2").split(","))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, assets_dir: Path) -> RunConfig:
    storage = tmp_path_factory.mktemp("storage")
    keys_file = storage / "keys"
    keys_file.write_text("".join(f"{name} {sha256(key.encode()).hexdigest()}\n" for name, key in KEYS.items()))
    two = {"num_replicas": 2, "cpus": 0.2}
    values = {"port": free_port(), **two, "large": two, "audit": {"share": 0.5, "seed": 0}}
    values |= {"auth": {"keys_file": str(keys_file)}, "application": "reviews"}
    return load_config(
        RunConfig,
        REVIEWS,
        [f"storage_path={storage}", f"assets_path={assets_dir}", f"serve={json.dumps(values)}"],
    )


@pytest.fixture(scope="module")
def first(quick_bundle: Callable[..., Path]) -> Release:
    """Keeps half of the sentences."""
    return served_folder(quick_bundle())


@pytest.fixture(scope="module")
def second(quick_bundle: Callable[..., Path]) -> Release:
    """Keeps everything, so that its answers differ from those of the first."""
    return served_folder(quick_bundle(policy=Policy(decision=KEEP_ALL)))


@pytest.fixture(scope="module")
def url(config: RunConfig, first: Release) -> Iterator[str]:
    yield deploy(first, Site.of(config).serve, config.assets_path, ready_timeout_s=400)
    end_serve()


@pytest.fixture(scope="module")
def expected(first: Release, config: RunConfig, sentences: list[str]) -> list[Answer]:
    answers = load_cascade(first.bundle, config.assets_path).answer([Input(Content(text)) for text in sentences])
    return [answer for answer in answers if isinstance(answer, Answer)]


@dataclass(frozen=True)
class Asked:
    """What a caller was answered on the sentences from `place` on."""

    caller: str
    place: int
    response: dict[str, Any]


def load_on(url: str, sentences: list[str]) -> Load:
    """Four threads for twelve callers; a request that fails is not repeated."""

    def ask(client: httpx.Client, number: int) -> Asked:
        caller = f"caller-{number % len(KEYS)}"
        place = (number * ITEMS) % (len(sentences) - ITEMS)
        body = {"inputs": [{"text": text} for text in sentences[place : place + ITEMS]]}
        headers = {"authorization": f"Bearer {KEYS[caller]}"}
        response = client.post(f"{url}/v1/predict", json=body, headers=headers).raise_for_status()
        return Asked(caller, place, response.json())

    return Load(ask, callers=4)


def versions(load: Load) -> set[str]:
    return {asked.response["model_version"] for asked in load.answered}


def mixed(load: Load, expected: list[Answer], second: Release) -> list[Any]:
    """Requests with an answer that is not that of the version they name; items at the threshold are left out."""
    found = []
    for asked in load.answered:
        for offset, answer in enumerate(asked.response["answers"]):
            mine = expected[asked.place + offset]
            assert mine.threshold is not None
            near = abs(mine.gate_score - mine.threshold) < 1e-4
            if asked.response["model_version"] == second.version:
                wrong = answer["route"] != "small"
            else:
                wrong = not near and not answer["degraded"] and answer["route"] != mine.route
            if wrong:
                found.append((asked.place, asked.response["model_version"], answer))
    return found


def beside(champion: Release, challenger: Release, share: float = 0.0, stage: int = 0) -> Release:
    mode = "canary" if share else "shadow"
    trial = Challenger(version=challenger.version, bundle=challenger.bundle, mode=mode, share=share, stage=stage)  # type: ignore[arg-type]
    return champion.model_copy(update={"challenger": trial})


def card(url: str) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {KEYS['caller-0']}"}
    found: dict[str, Any] = httpx.get(f"{url}/v1/model", headers=headers, timeout=60).json()
    return found


def test_a_challenger_is_tried_out_promoted_and_rolled_back_under_load(
    url: str, config: RunConfig, first: Release, second: Release, sentences: list[str], expected: list[Answer]
) -> None:
    """Promise: no request fails or is answered by two versions, and a caller keeps to its version within a stage."""
    log = DecisionLog(f"sqlite:///{config.storage_path}/feedback.db", 30.0)
    with load_on(url, sentences) as load:
        load.wait_for(4)
        change_release(beside(first, second))
        load.wait_for(12)
        assert versions(load) == {first.version}
        assert (card(url)["challenger"]["version"], card(url)["challenger"]["mode"]) == (second.version, "shadow")
        change_release(beside(first, second, share=0.5, stage=1))
        start = len(load.answered) + 4  # those under way belong to the stage before
        load.wait_for(40)
        by_caller: dict[str, set[str]] = {}
        for asked in load.answered[start:]:
            by_caller.setdefault(asked.caller, set()).add(asked.response["model_version"])
        assert all(len(met) == 1 for met in by_caller.values())
        assert set.union(*by_caller.values()) == {first.version, second.version}
        for number in range(NUM_PROMOTIONS):
            champion, challenger = (first, second) if number % 2 == 0 else (second, first)
            change_release(beside(champion, challenger, share=0.3, stage=1))
            load.wait_for(3)
            change_release(challenger)
            load.wait_for(3)
            assert current_release() == challenger
        change_release(first)
    assert load.failed == []
    assert mixed(load, expected, second) == []
    time.sleep(1.5)  # decisions are in the log within a second
    rows = log.read(DECISIONS)
    assert any(row["shadow_version"] for row in rows)
    canary = [row for row in rows if row["model_version"] == second.version and row["stage"] == 1]
    assert {row["audit_share"] for row in canary} <= {0.5, 1.0}
    assert all(row["seconds"] > 0 for row in canary)


def test_a_challenger_that_cannot_be_loaded_harms_nobody(
    url: str, first: Release, sentences: list[str], tmp_path: Path, quick_bundle: Callable[..., Path]
) -> None:
    other = served_folder(quick_bundle(encoder_identity="0" * 64))
    with load_on(url, sentences) as load:
        for release in (Release(version="nowhere", bundle=tmp_path / "nowhere"), other):
            with pytest.raises(KcmError, match="is dropped"):
                change_release(beside(first, release))
            load.wait_for(2)
    assert (load.failed, versions(load)) == ([], {first.version})
    assert current_release() == first


def test_a_rollout_promotes_the_good_and_rolls_the_bad_back_by_itself(
    url: str, config: RunConfig, first: Release, second: Release, sentences: list[str], expected: list[Answer]
) -> None:
    """Promise: the trial decides by what is in the log, and no request pays for it."""
    settings = CanaryConfig(
        shadow_decisions=300,
        stages=(0.4, 1.0),
        decisions_per_stage=300,
        max_error_rate=0.1,
        max_slow_rate=0.8,  # a busy machine says nothing about time
        timeout_s=400.0,
    )
    log = TrialLog(f"sqlite:///{config.storage_path}/feedback.db", "reviews", 30.0)
    with load_on(url, sentences) as load:
        service = RunningService()
        outcome = roll_out(first, second, settings, service=service, log=log, epsilon=0.15, label_free=False)
        assert outcome.promoted, outcome.reason
        assert [stage.stage for stage in outcome.stages] == [0, 1, 2]
        assert current_release() == second
        change_release(first)
        for _ in range(NUM_ROLLBACKS):
            # Most of what it keeps is not what the large model says, and its certificate allows it next to nothing.
            outcome = roll_out(
                first,
                second,
                settings.model_copy(update={"shadow_decisions": 0}),
                service=service,
                log=log,
                epsilon=0.05,
                label_free=True,
            )
            assert not outcome.promoted
            assert "disagreement" in outcome.reason
            assert current_release() == first
        load.wait_for(10)
    assert load.failed == []
    assert mixed(load, expected, second) == []
    log.close()


def test_an_alarm_in_the_log_stops_every_replica_from_keeping_anything(
    url: str, config: RunConfig, first: Release, sentences: list[str]
) -> None:
    """Promise: what one replica finds out is acted upon by all within seconds, while they answer."""
    log = DecisionLog(f"sqlite:///{config.storage_path}/feedback.db", 30.0, "reviews")
    with load_on(url, sentences) as load:
        load.wait_for(4)
        assert card(url)["standing"] == "holds"
        assert log.raise_alarm(first.version, 0.02, 0.1)
        raised_at = time.monotonic()
        while {card(url)["standing"] for _ in range(12)} != {"refuted"}:  # the proxy asks another replica each time
            assert time.monotonic() - raised_at < 30  # on a busy machine
        start = len(load.answered) + 4  # those under way were judged before
        load.wait_for(20)
    later = [answer["route"] for asked in load.answered[start:] for answer in asked.response["answers"]]
    assert set(later) <= {"large", "small_degraded"}
    assert load.failed == []
    log.close()
