"""The cards of a service: its model, and the model's figures."""

from __future__ import annotations

import math

from markupsafe import Markup

from kcm.bundle.bundle import Bundle
from kcm.certification.certificate import certificates_json
from kcm.certification.ledger import look_delta
from kcm.certification.window import fewest_audited
from kcm.costs import CostsConfig, prices
from kcm.report.page import model_section
from pipelines.serve.breaker import Breaker
from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.config import ServeConfig
from pipelines.serve.release import Releases
from pipelines.serve.schemas import (
    ModelCard,
    NoveltyCard,
    ReplicaTraffic,
)


class Cards:
    """Cards of the versions in `releases`, with this replica's counts."""

    def __init__(
        self,
        releases: Releases[CascadeVersion],
        config: ServeConfig,
        breaker: Breaker,
        traffic: ReplicaTraffic,
    ) -> None:
        self._releases, self._config, self._breaker, self._traffic = releases, config, breaker, traffic
        self._section: tuple[str, Markup] | None = None

    def card(self) -> ModelCard:
        """The model that is being served."""
        bundle = self._releases.current.small_side.bundle
        certificates = dict(bundle.certificates)
        return ModelCard(
            model_version=self._releases.release.version,
            digest=bundle.digest,
            labels=list(bundle.label_names),
            tasks=list(bundle.task_names),
            reads=sorted(bundle.reads),
            encoder=bundle.encoder.name,
            large=bundle.large.adapter,
            policy=self._releases.current.small_side.policy,
            certificate=certificates.pop(None, None),
            task_certificates={task: certificate for task, certificate in certificates.items() if task is not None},
            lineage=bundle.lineage.model_dump(mode="json"),
            standing=self._releases.current.guard.standing,
            void=self._releases.current.guard.void,
            novelty=self._novelty_card(),
            update_units=update_units(bundle, self._config.audit.share),
            traffic=self._traffic,
            call_rate=self._traffic.call_rate,
            cost_saved=self._traffic.cost_saved,
            breaker=self._breaker.state,
            loading=self._releases.loading,
            refused=self._releases.refused,
        )

    def report(self) -> Markup:
        """The model card in words and figures, as a fragment of a page; rendered once per version."""
        bundle = self._releases.current.small_side.bundle
        if self._section and self._section[0] == bundle.digest:
            return self._section[1]
        certificate = certificates_json(bundle.certificates) if None in bundle.certificates else {}
        section = model_section(
            bundle.collaborator.name,
            bundle.metrics,
            certificate | {"asked_delta": bundle.metrics.get("asked_delta")},
            bundle.policy.model_dump(mode="json"),
            prices(self._config.costs or CostsConfig(), bundle.metrics.get("usage")),
            void=self._releases.current.guard.void,
        )
        self._section = bundle.digest, section
        return section

    def _novelty_card(self) -> NoveltyCard:
        version = self._releases.current
        if version.novelty is None:
            return NoveltyCard(watched=False)
        escalates = math.isfinite(version.small_side.farthest)
        return NoveltyCard(watched=True, e_value=version.novelty.e_value, escalates=escalates)


def update_units(bundle: Bundle, share: float) -> int | None:
    """Certify units of traffic that the first update of a bundle needs; None without audits or a certificate."""
    certificate, delta = bundle.certificates.get(None), bundle.metrics.get("asked_delta")
    if not (share and certificate and certificate.epsilon and delta):
        return None
    return fewest_audited(share, certificate.epsilon, look_delta(delta, 1) / (1 + len(bundle.policy.task_decisions)))
