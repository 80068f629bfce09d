"""After how many decisions of a window its challenger could have been certified, and how many are planned for."""

from __future__ import annotations

import bisect
import math
from datetime import UTC, datetime

import numpy as np
from scipy.special import logsumexp

from kcm.cascade.policy import ESCALATE_ALL, Policy
from kcm.certify.certificate import CertificateConfig
from kcm.certify.ledger import look_delta
from kcm.certify.traffic import best_bet, mixture
from pipelines.config import RunConfig
from pipelines.loop.inbox import searched_policy
from pipelines.loop.judged import JudgedWindow
from pipelines.loop.recertify import JUDGED, Recertify, certify_window
from pipelines.loop.state import LoopState
from pipelines.loop.window import LogWindow, WindowArtefact, WindowFacts
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.stages.register import BundleArtefact, Register

STEP = 20  # decisions


def first_certified(config: RunConfig, state: LoopState) -> int | None:
    """The decisions after which the first turn's certificate could have been given, without a label, to `STEP`.

    For the challenger as it was trained on the whole window, at the delta that the turn has spent. None where all of
    them were too few, or no challenger was trained. It chooses no certificate: it is for people who plan their traffic.
    """
    assert config.update is not None
    turn = state.attempts.turns()[0]
    if turn["candidate"] is None:
        return None
    bundle = state.store.named(Register.stage, turn["candidate"]["bundle"]).as_a(BundleArtefact)
    evaluated = bundle.source(EvaluatedArtefact, Recertify.stage)
    name = evaluated.deployed
    facts = evaluated.source(WindowArtefact, LogWindow.stage).facts
    judged = JudgedWindow.read(evaluated.folder / name / JUDGED)
    policy = searched_policy(evaluated.policy(name), evaluated.certificates(name))
    spend = look_delta(config.certificate.delta, 1)
    return earliest(judged, policy, config.certificate, facts, delta=spend)


def earliest(
    judged: JudgedWindow, policy: Policy, config: CertificateConfig, facts: WindowFacts, *, delta: float
) -> int | None:
    """The decisions of a judged window after which `policy`, or a stricter one that keeps something, is certified."""
    certify = judged.of_purpose("certify")
    for num_decisions in range(STEP, facts.upto - facts.after + STEP, STEP):
        rows = certify.select(certify.rows["number"] <= facts.after + num_decisions)
        if not len(rows):
            continue
        found, _ = certify_window(rows, policy, config, facts, delta=delta, expires_at=datetime.now(UTC))
        if any(decision != ESCALATE_ALL for decision in (found.decision, *found.task_decisions.values())):
            return min(num_decisions, facts.upto - facts.after)
    return None


def decisions_needed(rate: float, share: float, epsilon: float, delta: float) -> int | None:
    """Units that certify in about half of all windows where a challenger disagrees on `rate` of them.

    Each is audited with `share`, and all are kept by the deployed cascade. None where no number suffices.
    """
    if rate >= epsilon:
        return None
    level, lost = share * epsilon, share * rate  # X is 1 for a lost unit, else 0

    def is_enough(num_units: int) -> bool:
        bets_G, weights_G = mixture(best_bet(num_units, level, delta))
        growth_G = lost * np.log1p(-bets_G * (1 - level)) + (1 - lost) * np.log1p(bets_G * level)
        return bool(logsumexp(num_units * growth_G, b=weights_G) >= math.log(1 / delta))

    high = 1
    while not is_enough(high):
        high *= 2
    return bisect.bisect_left(range(high + 1), True, lo=high // 2, key=is_enough)
