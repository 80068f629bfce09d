"""Promise: a service whose encoder runs otherwise than it was certified says so, and keeps nothing on that promise."""

import asyncio
import logging
from contextlib import closing
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from kcm.bundle.answers import Judgement
from kcm.bundle.bundle import Bundle
from kcm.bundle.frozen_models import ComputedBy
from kcm.cascade.policy import ESCALATE_ALL, Decision, OnLargeFailure, Policy
from kcm.certification.monitoring.novelty import NoveltyReference
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.encoders.text import TextEncoderConfig
from kcm.large import LinearHead
from kcm.large.adapters.classifier import ClassifierConfig
from pipelines.serve.breaker import Breaker, BreakerConfig
from pipelines.serve.cascade.loading import VersionLoader
from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.config import FeedbackConfig, LargeReplicaConfig, ServeConfig
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.release import Release
from tests.kcm.bundle.test_bundle import bundle as any_bundle
from tests.pipelines.serve.stubs import NoMetrics
from tests.tiny_bert import save_bert

ONNX = ComputedBy(encoder="onnx on cpu", large="torch on cpu")
KEEPS = Policy(decision=Decision(decision="threshold", threshold=-5.0))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A version that was certified in ONNX Runtime."""
    folder = tmp_path_factory.mktemp("version")
    model = save_bert(folder / "bert", ["good", "bad"])
    encoder = TextEncoderConfig(model=str(model), runtime="onnx")
    large = ClassifierConfig(encoder=TextEncoderConfig(model=str(model), runtime="torch"))
    head = LinearHead(np.ones((2, 32), np.float32), np.zeros(2, np.float32))
    bundle = any_bundle(
        collaborator=Collaborator(32, 2, NetworkConfig(hidden=(4,)), "kan", seed=0).requires_grad_(False),
        label_names=("negative", "positive"),
        encoder=encoder,
        encoder_identity=encoder.identity(folder),
        large=large,
        large_identity=large.identity(("negative", "positive"), folder, head=head),
        large_head=head,
        policy=KEEPS,
        certified_by=ONNX,
    )
    return Release(version="7", bundle=bundle.write(folder / "bundle"))


async def load(
    release: Release, config: ServeConfig, beside: Any = None, log: LogWriter | None = None
) -> CascadeVersion:
    assets, breaker, large = release.bundle.parent, Breaker(BreakerConfig()), cast(Any, None)
    return await VersionLoader(config, assets, large, breaker, cast(Any, NoMetrics()), log).load(release, beside)


def loaded(release: Release, config: ServeConfig, beside: Any = None) -> CascadeVersion:
    return asyncio.run(load(release, config, beside))


def test_in_the_certified_runtime_the_certificate_holds(release: Release) -> None:
    version = loaded(release, ServeConfig())
    assert (version.guard.standing, version.guard.void, version.small_side.policy) == ("holds", None, KEEPS)


def in_torch(release: Release, folder: Path) -> Release:
    """The version as a machine without ONNX Runtime would write it, with the certificate of the first machine."""
    bundle = Bundle.read(release.bundle)
    encoder = bundle.encoder.with_settings(runtime="torch")
    return Release(version="8", bundle=replace(bundle, encoder=encoder).write(folder / "torch"))


def test_another_runtime_is_not_certified_and_escalates_everything(
    release: Release, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise: on another runtime nothing is certified, and everything is escalated."""
    other = in_torch(release, tmp_path)
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        version = loaded(other, ServeConfig())
    assert version.guard.standing == "not certified on this runtime"
    assert "version 8 is not certified on this runtime" in caplog.text
    assert version.small_side.policy.decision == ESCALATE_ALL
    assert "onnx on cpu" in caplog.text
    assert "torch on cpu" in caplog.text
    assert loaded(other, ServeConfig(on_refuted="report")).small_side.policy == KEEPS


@pytest.mark.parametrize("refuted", [True, False])
async def test_version_that_starts_without_its_log_keeps_nothing_until_the_log_is_read(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuted: bool
) -> None:
    """Promise: while nobody knows whether the log has refuted a certificate, nothing is kept on its promise."""
    monkeypatch.setattr("pipelines.serve.log.writer.REST_S", 0.0)
    there, away = tmp_path / "log", tmp_path / "away"
    there.mkdir()
    url = f"sqlite:///{there}/feedback.db"
    with closing(DecisionLog(url, 30.0)) as earlier:
        earlier.open()
        if refuted:
            earlier.refute(release.version)
    there.rename(away)
    with closing(LogWriter(FeedbackConfig(), url)) as log:
        reporting = await load(release, ServeConfig(on_refuted="report"), log=log)
        assert (reporting.guard.standing, reporting.small_side.policy) == ("unknown", KEEPS)
        version = await load(release, ServeConfig(), log=log)
        version.guard.act()  # as each request does
        assert (version.guard.standing, version.small_side.policy.decision) == ("unknown", ESCALATE_ALL)
        away.rename(there)
        assert version.auditor is not None
        await version.auditor.monitor.recall()
        assert version.guard.standing == ("refuted" if refuted else "holds")
        assert version.small_side.policy.decision == (ESCALATE_ALL if refuted else KEEPS.decision)


async def test_new_classes_escalate_far_inputs_in_service(release: Release, tmp_path: Path) -> None:
    """Promise: once new classes are noticed inputs far from all known ones escalate."""
    bundle, rng = Bundle.read(release.bundle), np.random.default_rng(0)
    reference = NoveltyReference.fit(rng.random(200), 0.5)
    watched = Release(version="8", bundle=replace(bundle, novelty=reference).write(tmp_path / "bundle"))

    async def answers(novelty: float) -> float:
        version = await load(watched, ServeConfig())
        judged = Judgement(0, np.ones(2) / 2, 0.5, 1.0, 0.5, True, 0.0, np.zeros(32, np.float32), novelty)
        assert version.novelty is not None
        version.novelty.add([judged] * 100)
        await version.novelty.look()
        return version.small_side.farthest

    assert await answers(novelty=0.1) == inf
    assert await answers(novelty=2.0) == 0.5


def test_versions_share_an_encoder_in_the_same_runtime_alone(release: Release, tmp_path: Path) -> None:
    """Promise: a version next to one in another runtime is computed in its own, in which it is certified."""
    first, other = loaded(release, ServeConfig()), loaded(in_torch(release, tmp_path), ServeConfig())
    assert loaded(release, ServeConfig(), beside=first).judging is first.judging
    second = loaded(release, ServeConfig(), beside=other)
    assert (second.judging is other.judging, second.guard.standing) == (False, "holds")


@pytest.mark.parametrize(("chosen", "expected"), [(None, "answer_small"), ("error", "error")])
def test_the_operators_failure_rule_goes_first(
    release: Release, chosen: OnLargeFailure | None, expected: OnLargeFailure
) -> None:
    """Promise: `serve.large.on_large_failure` replaces the bundle's rule, also where a guard restores the policy."""
    side = loaded(release, ServeConfig(large=LargeReplicaConfig(on_large_failure=chosen))).small_side
    assert side.policy.on_large_failure == side.bundle.policy.on_large_failure == expected
