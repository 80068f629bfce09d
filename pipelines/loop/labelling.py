"""Which challenger labels are asked for, and its inbox: that of the last turn, while it waits or has just won."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from kcm.bundle.bundle import Bundle
from kcm.cascade.policy import Policy
from kcm.certify.certificate import Certificate
from kcm.errors import DataError
from pipelines.config import RunConfig
from pipelines.loop.certify.inbox import GivenLabels, Inbox, InboxPlan
from pipelines.loop.certify.judged import JudgedWindow
from pipelines.loop.certify.lineage import LineageLedger
from pipelines.loop.stages.reevaluate import JUDGED, Reevaluate
from pipelines.loop.stages.window import WindowArtefact
from pipelines.loop.state import LoopState, inboxes_key
from pipelines.serve.config import log_url
from pipelines.serve.log.database import Database, LogUnavailableError
from pipelines.serve.log.inbox import close_inboxes
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.stages.register import BundleArtefact, Register
from pipelines.store.control.journal import Journal

LOG_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Challenger:
    """A challenger whose certificate keeps less than its search wanted, so that labels may help it."""

    version: str
    bundle: BundleArtefact
    evaluated: EvaluatedArtefact
    searched: Policy


def challenger_of(config: RunConfig, state: LoopState) -> Challenger:
    """The challenger that labels are asked for. Raises DataError where there is none, saying what to do."""
    turns = state.attempts.turns()
    current = state.champions.pointer.current()
    turn = turns[-1] if turns else None
    if current is None or turn is None or not turn["candidate"]:
        raise DataError(
            "no challenger waits for labels", where=config.name, hint="`kcm update` trains one; labels follow it"
        )
    if current.champion.digest not in (turn["champion_digest"], turn["digest"]):
        raise DataError(
            f"{current.champion.version} became the champion after {turn['version']} was trained beside another",
            where=config.name,
            hint="Start `kcm update` again",
        )
    artefact = state.store.named(Register.stage, turn["candidate"]["bundle"]).as_a(BundleArtefact)
    evaluated = artefact.source(EvaluatedArtefact, Reevaluate.stage)
    name = evaluated.deployed
    searched = searched_policy(evaluated.policy(name), evaluated.certificates(name))
    if searched == evaluated.policy(name):
        raise DataError(f"{turn['version']} is certified as it was searched: no label is needed", where=config.name)
    return Challenger(turn["version"], artefact, evaluated, searched)


def searched_policy(policy: Policy, certificates: dict[str | None, Certificate]) -> Policy:
    """The policy that was searched, before its certificates made it stricter."""
    tasks = {task: each.searched for task, each in certificates.items() if task is not None}
    return policy.model_copy(update={"decision": certificates[None].searched, "task_decisions": tasks})


@contextmanager
def opened_inbox(config: RunConfig, *, ask: bool = True) -> Iterator[Inbox]:
    """The inbox of the challenger that labels are asked for, with all that is drawn in it.

    The first time opens a look of the lineage's ledger, which all labels of this challenger share. Raises DataError
    where no labels are asked for. From then on the service asks for them, too, unless `ask` is false.
    """
    state = LoopState.of(config)
    challenger = challenger_of(config, state)
    attempt = _attempt_of(challenger)
    window = challenger.evaluated.source(WindowArtefact, "window")

    def planned(_: int) -> dict[str, object]:
        spent = LineageLedger(state.store.control, config.name).spend(attempt, config.certificate.delta)
        return InboxPlan(
            attempt=attempt,
            application=config.application,
            version=challenger.version,
            policy=challenger.searched,
            labels=Bundle.read(challenger.bundle.bundle).answer_names,
            floor=window.share_floor,
            epsilon=config.certificate.epsilon,
            delta=spent.spend,
        ).model_dump(mode="json")

    entry = _plans(config, state).append(planned, same=lambda each: bool(each["attempt"] == attempt))
    plan = InboxPlan.model_validate(entry)
    judged = _judged(config, challenger).of_purpose("certify")
    url = log_url(config.serve, config.storage_folder)
    with closing(Inbox(url, plan, judged.table, judged.score.tolist(), judged.label)) as inbox:
        inbox.fill()
        if ask:
            inbox.ask()
        yield inbox


def sufficient_labels(config: RunConfig) -> GivenLabels | None:
    """The labels of the last turn's challenger, where they certify what was searched; None where they do not yet.

    Where all are given, those suffice that certify a policy which keeps more than the deployed one. Opens no inbox, and
    no look in the ledger.
    """
    state = LoopState.of(config)
    try:
        challenger = challenger_of(config, state)
    except DataError:
        return None
    opened = {entry["attempt"] for entry in _plans(config, state).entries()}
    if _attempt_of(challenger) not in opened:
        return None
    with opened_inbox(config, ask=False) as inbox:
        standing = inbox.standing()
        if standing.certified:
            return inbox.given()
        if standing.num_open or not standing.stricter:
            return None
        judged = _judged(config, challenger).of_purpose("certify")
        name = challenger.evaluated.deployed
        policies = inbox.certified_policy(), challenger.evaluated.policy(name)
        by_labels, deployed = (float(judged.under(policy).keeps.mean()) for policy in policies)
        return inbox.given() if by_labels > deployed else None


def withdraw_labels(config: RunConfig) -> None:
    """Let the service ask for no more labels of a challenger that another follows, or that they sufficed for."""
    with (
        suppress(LogUnavailableError),
        closing(Database(log_url(config.serve, config.storage_folder), LOG_TIMEOUT_S)) as log,
        log.writing() as connection,
    ):
        close_inboxes(connection, config.application)


def _judged(config: RunConfig, challenger: Challenger) -> JudgedWindow:
    return JudgedWindow.read(challenger.evaluated.folder / challenger.evaluated.deployed / JUDGED)


def _plans(config: RunConfig, state: LoopState) -> Journal:
    return Journal(state.store.control, inboxes_key(config.name))


def _attempt_of(challenger: Challenger) -> str:
    return f"{challenger.evaluated.fingerprint}-labels"
