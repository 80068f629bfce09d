"""The plan of a service before it starts: how much traffic until an update can certify, and what its audits cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from kcm.bundle.bundle import Bundle
from kcm.certification.window import fewest_audited
from kcm.costs import prices
from pipelines.config import RunConfig
from pipelines.loop.config import UpdateConfig
from pipelines.store.records import Control, StoredLedger


@dataclass(frozen=True)
class ServicePlan:
    """What the next `kcm update` needs, if no audited item is lost.

    `requests` different requests are `units` certify units and enough large answers to learn from; `audits` are the
    expected calls for it, at `price` each if that is known. No number of requests suffices without audits.
    """

    share: float
    units: int
    requests: int
    audits: int
    price: float | None
    currency: str

    @classmethod
    def of(cls, config: RunConfig, update: UpdateConfig, bundle: Bundle, control: Control) -> Self | None:
        """The plan for a champion's `bundle`, whose lineage's ledger is in `control`.

        None if kept items are not audited, so that no update can certify.
        """
        share = config.serve.audit.share
        certificate = bundle.certificates.get(None)
        escalated = 1.0 if bundle.policy.lowest_cut == math.inf else certificate.call_rate if certificate else 0.0
        if not share and escalated < 1:
            return None
        costs = config.serve.costs or config.costs
        price = prices(costs, bundle.metrics.get("usage"))
        delta = StoredLedger.of_lineage(control, config.name).next_spend(config.certificate.delta)
        delta /= 1 + len(bundle.policy.task_decisions)
        units = fewest_audited(share if escalated < 1 else 1.0, config.certificate.epsilon, delta)
        asked = escalated + (1 - escalated) * share
        requests = math.ceil(max(units / update.fractions["certify"], update.min_large_answers / asked))
        audits = math.ceil(requests * (1 - escalated) * share)
        return cls(share, units, requests, audits, price.large if price else None, costs.currency)

    def __str__(self) -> str:
        cost = "" if self.price is None else f", {self.currency} {self.audits * self.price:,.2f}"
        return (
            f"the next update can certify after about {self.requests:,} different requests, which are {self.units:,} "
            f"certify units; audits of {self.share:.0%} of the kept items ask {self.audits:,} times{cost}"
        )
