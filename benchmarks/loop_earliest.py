"""After how many decisions of a window its challenger could have been certified, beside what was planned."""

from __future__ import annotations

import pyarrow.compute as pc

from kcm.cascade.policy import ESCALATE_ALL, Policy
from kcm.certify.certificate import CertificateConfig
from pipelines.config import RunConfig
from pipelines.loop.certify.judged import JudgedWindow
from pipelines.loop.certify.lineage import LineageLedger
from pipelines.loop.certify.recertify import certify_window, planned_bet
from pipelines.loop.certify.scope import WindowScope
from pipelines.loop.labelling import searched_policy
from pipelines.loop.stages.reevaluate import JUDGED, Reevaluate
from pipelines.loop.stages.window import WindowArtefact
from pipelines.loop.state import LoopState
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
    evaluated = bundle.source(EvaluatedArtefact, Reevaluate.stage)
    name = evaluated.deployed
    window = evaluated.source(WindowArtefact, "window")
    judged = JudgedWindow.read(evaluated.folder / name / JUDGED)
    policy = searched_policy(evaluated.policy(name), evaluated.certificates(name))
    return earliest(
        judged,
        policy,
        config.certificate,
        scope=window.scope(config.update.expires_days),
        floor=window.share_floor,
        delta=LineageLedger(state.store.control, config.name).attempts()[0].spend,
    )


def earliest(
    judged: JudgedWindow,
    policy: Policy,
    config: CertificateConfig,
    *,
    scope: WindowScope,
    floor: float,
    delta: float,
) -> int | None:
    """The decisions of a judged window after which `policy`, or a stricter one that keeps something, is certified."""
    planned, certify = judged.of_purpose("validate"), judged.of_purpose("certify").table
    bet = planned_bet(planned.table, planned.score, planned.label, policy, config.epsilon, floor)
    for num_decisions in range(STEP, scope.upto - scope.after + STEP, STEP):
        rows = JudgedWindow(certify.filter(pc.less_equal(certify["number"], scope.after + num_decisions)))
        if not len(rows):
            continue
        found, _ = certify_window(
            rows.table, rows.score, rows.label, policy, config, scope=scope, floor=floor, delta=delta, bet=bet
        )
        if any(decision != ESCALATE_ALL for decision in (found.decision, *found.task_decisions.values())):
            return min(num_decisions, scope.upto - scope.after)
    return None
