"""The inbox: the few disagreements of the last turn's challenger that are worth a person's label.

What is drawn is written down before anything is shown, with its probability and its place in a frozen order. An item
that is skipped counts as lost. The look that the labels are for is in the lineage's ledger once, however often one
looks at what they certify so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property

from kcm.bundle.bundle import Bundle
from kcm.cascade.policy import ESCALATE_ALL, Policy
from kcm.certification.certificate import Certificate
from kcm.errors import DataError
from pipelines.config import RunConfig
from pipelines.loop.disputes import GivenLabels, InboxPlan, drawn_items, label_tests
from pipelines.loop.judged import JudgedWindow
from pipelines.loop.recertify import JUDGED, Recertify
from pipelines.loop.state import LoopState
from pipelines.loop.window import WindowArtefact
from pipelines.serve.config import log_url
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.entries import RejectedError
from pipelines.serve.log.inbox import AskedFor, InboxItem, InboxLog, LabelTest, Standing, State, standing_of
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.stages.register import BundleArtefact, Register
from pipelines.store.control.journal import Journal, StoredLedger

LOG_TIMEOUT_S = 10.0


class Inbox(InboxLog):
    """The inbox of a plan in the log at `url`; `judged` holds the window's certify decisions.

    Raises LogUnavailableError where the log fails; nothing is half stored.
    """

    def __init__(self, url: str, plan: InboxPlan, judged: JudgedWindow, timeout_s: float = 60.0) -> None:
        super().__init__(url, timeout_s, plan.application)
        self.plan, self._judged = plan, judged

    def fill(self) -> int:
        """Write down all that is drawn, and give the number of items; a second time changes nothing."""
        items = drawn_items(self._judged, self.plan)
        self.draw_items(self.plan.attempt, items)
        return len(items)

    def ask(self) -> None:
        """Let the service ask people for these labels, and for those of no other inbox of the application."""
        self.open_inbox(self._asked_for)

    def items(self, state: State | None = None, limit: int | None = None) -> list[InboxItem]:
        """The items in their order, those in `state` where one is given, `limit` at the most."""
        return self.inbox_items(self.plan.attempt, state, limit)

    def answer(self, answers: Mapping[str, str | None]) -> None:
        """Store what a person said of items by their ids: a label, or None for one that is skipped.

        Raises DataError for ids that are not in the inbox and labels outside the list, and stores nothing then.
        """
        try:
            self.answer_inbox(answers, again=True, asked=self._asked_for)
        except RejectedError as error:
            raise DataError(str(error), where="inbox", hint="Nothing was stored") from None

    def answers(self) -> dict[str, tuple[State, str | None]]:
        """State and label of each item by its id."""
        return self.inbox_states(self.plan.attempt)

    @property
    def _asked_for(self) -> AskedFor:
        return AskedFor(self.plan.attempt, self.plan.version, self.plan.labels, self.tests)

    @cached_property
    def tests(self) -> tuple[LabelTest, ...]:
        """What the labels are to certify."""
        return label_tests(self._judged, self.plan)

    def standing(self) -> Standing:
        """What the labels so far certify."""
        return standing_of(self.tests, self.answers())

    def certified_policy(self) -> Policy:
        """The policy that the labels so far certify: the searched one, or one that keeps less."""
        policy, labels = self.plan.policy, self.answers()
        certified = {test.task: test.certified(labels) for test in self.tests}
        own = {task: certified.get(task, ESCALATE_ALL) for task in policy.task_decisions}
        return policy.model_copy(update={"decision": certified.get(None, ESCALATE_ALL), "task_decisions": own})

    def given(self) -> GivenLabels:
        """The labels as they stand, for a certificate."""
        return GivenLabels(plan=self.plan, answers=self.answers())


@dataclass(frozen=True)
class LabelledChallenger:
    """A challenger whose certificate keeps less than its search wanted, so that labels may help it."""

    version: str
    bundle: BundleArtefact
    evaluated: EvaluatedArtefact
    searched: Policy

    @classmethod
    def of(cls, config: RunConfig, state: LoopState) -> LabelledChallenger:
        """The last turn's challenger, while it waits or has just won.

        Raises DataError where no labels are asked for, saying what to do.
        """
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
        bundle = state.store.named(Register.stage, turn["candidate"]["bundle"]).as_a(BundleArtefact)
        evaluated = bundle.source(EvaluatedArtefact, Recertify.stage)
        name = evaluated.deployed
        searched = searched_policy(evaluated.policy(name), evaluated.certificates(name))
        if searched == evaluated.policy(name):
            raise DataError(f"{turn['version']} is certified as it was searched: no label is needed", where=config.name)
        return cls(turn["version"], bundle, evaluated, searched)

    @property
    def attempt(self) -> str:
        """Names the draw of its labels."""
        return f"{self.evaluated.fingerprint}-labels"

    @property
    def deployed(self) -> Policy:
        """The policy that its certificate allows without labels."""
        return self.evaluated.policy(self.evaluated.deployed)

    def judged(self) -> JudgedWindow:
        """The window's certify decisions, as it judges them."""
        file = self.evaluated.folder / self.evaluated.deployed / JUDGED
        return JudgedWindow.read(file).of_purpose("certify")

    def plan(self, config: RunConfig, state: LoopState) -> InboxPlan:
        """How its labels are drawn. The first time opens a look of the ledger, which all its labels share."""

        def planned(_: int) -> dict[str, object]:
            ledger = StoredLedger.of_lineage(state.store.control, config.name)
            return InboxPlan(
                attempt=self.attempt,
                application=config.application,
                version=self.version,
                policy=self.searched,
                labels=Bundle.read(self.bundle.bundle).answer_names,
                floor=self.evaluated.source(WindowArtefact, "window").facts.share_floor,
                epsilon=config.certificate.epsilon,
                delta=ledger.look(config.certificate.delta, self.attempt).spend,
                noise=config.update.label_noise if config.update else 0.0,
            ).model_dump(mode="json")

        entry = _plans(state).append(planned, same=lambda entry: bool(entry["attempt"] == self.attempt))
        return InboxPlan.model_validate(entry)


def searched_policy(policy: Policy, certificates: Mapping[str | None, Certificate]) -> Policy:
    """The policy that was searched, before its certificates made it stricter."""
    tasks = {task: certificate.searched for task, certificate in certificates.items() if task is not None}
    return policy.model_copy(update={"decision": certificates[None].searched, "task_decisions": tasks})


@contextmanager
def opened_inbox(config: RunConfig, *, ask: bool = True) -> Iterator[Inbox]:
    """The inbox of the challenger that labels are asked for, with all that is drawn in it.

    Raises DataError where no labels are asked for. From then on the service asks for them, too, unless `ask` is false.
    """
    state = LoopState.of(config)
    challenger = LabelledChallenger.of(config, state)
    url = log_url(config.serve, config.storage_folder)
    with Inbox(url, challenger.plan(config, state), challenger.judged()) as inbox:
        inbox.fill()
        if ask:
            inbox.ask()
        yield inbox


def sufficient_labels(config: RunConfig, state: LoopState) -> GivenLabels | None:
    """The labels of the last turn's challenger, where they certify what was searched; None where they do not yet.

    Where all are given, those suffice that certify a policy which keeps more than the deployed one. Opens no inbox, and
    no look in the ledger.
    """
    opened = {entry["attempt"] for entry in _plans(state).entries()}
    if not opened:
        return None
    try:
        challenger = LabelledChallenger.of(config, state)
    except DataError:
        return None
    if challenger.attempt not in opened:
        return None
    with opened_inbox(config, ask=False) as inbox:
        standing = inbox.standing()
        if standing.certified:
            return inbox.given()
        if standing.num_open or not standing.stricter:
            return None
        judged = challenger.judged()
        by_labels, deployed = (
            judged.keeps(policy).mean() for policy in (inbox.certified_policy(), challenger.deployed)
        )
        return inbox.given() if by_labels > deployed else None


def withdraw_labels(config: RunConfig, state: LoopState) -> None:
    """Let the service ask for no more labels of a challenger that another follows, or that they sufficed for."""
    if not _plans(state).entries():
        return
    url = log_url(config.serve, config.storage_folder)
    with suppress(LogUnavailableError), InboxLog(url, LOG_TIMEOUT_S, config.application) as log:
        log.close_inboxes()


def _plans(state: LoopState) -> Journal:
    """Where the plans of a run's inboxes are written down."""
    return Journal(state.store.control, f"loop/{state.name}/inboxes")
