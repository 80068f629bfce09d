"""Makes a version of the cascade from a bundle: encoder, networks, large model, detection of new classes and audits."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.serve.handle import DeploymentHandle

from kcm.bundle.bundle import Bundle
from kcm.bundle.frozen_models import large_names, load_encoder, require_models
from kcm.bundle.runtime import SmallSide
from kcm.encoders import Encoder
from kcm.encoders.config import Runtime
from kcm.encoders.runtime import runtime_of
from pipelines.serve.breaker import Breaker
from pipelines.serve.cascade.cards import update_units
from pipelines.serve.cascade.models.escalation import Escalation
from pipelines.serve.cascade.models.judging import Judging, PictureReader
from pipelines.serve.cascade.novelty import NoveltyWatch
from pipelines.serve.cascade.version import CascadeVersion, CertificateGuard
from pipelines.serve.config import MAX_PIXELS, TOP_K, ServeConfig
from pipelines.serve.log.audit import Auditor
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.monitor import Monitor
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics
from pipelines.serve.release import Release

logger = logging.getLogger("ray.serve")


class VersionLoader:
    """Loads versions; `log` is None if nothing is logged."""

    def __init__(
        self,
        config: ServeConfig,
        assets_dir: Path,
        large: DeploymentHandle[Any],
        breaker: Breaker,
        metrics: ServeMetrics,
        log: LogWriter | None,
    ) -> None:
        self._config, self._assets_dir, self._large = config, assets_dir, large
        self._breaker, self._metrics, self._log = breaker, metrics, log

    async def load(self, release: Release, champion: CascadeVersion | None) -> CascadeVersion:
        """A version; it shares the encoder of `champion` if both use the same one in the same runtime."""
        config = self._config
        bundle = await asyncio.to_thread(Bundle.read, release.bundle)
        if champion:  # otherwise the large model's own replicas refuse a model that is not the bundle's
            await asyncio.to_thread(require_models, bundle, self._assets_dir, config.large.upstreams)
        if champion and _encoder(champion.small_side.bundle) == _encoder(bundle):
            judging = champion.judging
        else:
            judging = await asyncio.to_thread(self._judging, bundle)
        small_side = self._small_side(bundle, judging.encoder)
        escalation = Escalation(self._large, release, len(large_names(bundle)), config.large, self._breaker)
        guard = CertificateGuard(
            small_side,
            release.version,
            config.on_refuted,
            void=bundle.void_on(*config.devices),
            has_log=self._log is not None,
        )
        guard.act()  # the runtime may be another one, or the certificate expired
        auditor = await self._auditor(self._log, release, bundle, escalation, guard) if self._log else None
        self._metrics.set_update_units(release.version, update_units(bundle, config.audit.share))
        watching = release.version, self._log, self._metrics, guard.escalate_novel
        novelty = NoveltyWatch(bundle.novelty, *watching) if bundle.novelty else None
        return CascadeVersion(small_side, judging, escalation, config, release.version, guard, auditor, novelty)

    def _judging(self, bundle: Bundle) -> Judging:
        config, encoder = self._config, self._encoder_of(bundle)
        pictures = PictureReader(encoder.read, config, MAX_PIXELS)
        return Judging(encoder, pictures, config, max_wait_s=config.judge_timeout_s)

    def _encoder_of(self, bundle: Bundle) -> Encoder:
        return load_encoder(bundle, self._assets_dir, self._config.device)

    async def _auditor(
        self, writer: LogWriter, release: Release, bundle: Bundle, escalation: Escalation, guard: CertificateGuard
    ) -> Auditor:
        config = self._config
        monitor = Monitor(writer, release.version, bundle.certificates.get(None), self._metrics, guard.act)
        try:  # the version may have answered before, and been refuted
            await monitor.recall()
        except LogUnavailableError as error:
            logger.warning("the certificate of version %s cannot be checked yet: %s", release.version, error)
        monitor.schedule()
        return Auditor(
            config.audit,
            bundle.answer_names,
            lambda items: escalation.ask(items, config.large.timeout_s),
            writer,
            monitor,
            self._metrics,
        )

    def _small_side(self, bundle: Bundle, encoder: Encoder) -> SmallSide:
        if policy_on_failure := self._config.large.on_large_failure:
            bundle = replace(bundle, policy=bundle.policy.on_failure(policy_on_failure))
        return SmallSide(bundle, encoder, self._config.device, TOP_K)


def _encoder(bundle: Bundle) -> tuple[str, Runtime | None]:
    """What two versions have in common if they can share an encoder: its identity and its runtime."""
    return bundle.encoder_identity, runtime_of(bundle.encoder)
