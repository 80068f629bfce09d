"""The few disagreements of the last turn's challenger that are worth an annotator's label.

Hashes decide which items are drawn, with which probability and in which order, whenever needed; the log holds the
labels. A skipped item counts as lost. The look behind the labels is in the lineage's ledger once, however often the
result so far is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from kcm.bundle.bundle import Bundle
from kcm.cascade.policy import ESCALATE_ALL, Policy
from kcm.certification.certificate import Certificate
from kcm.errors import DataError
from pipelines.config import RunConfig
from pipelines.loop.gates.disagreements import (
    GivenLabels,
    LabelPlan,
    LabelTest,
    Standing,
    State,
    drawn_places,
    label_tests,
    standing_of,
)
from pipelines.loop.gates.recertify import JUDGED, Recertify
from pipelines.loop.state import LOG_TIMEOUT_S, LoopState
from pipelines.loop.window.judged_window import JudgedWindow, row_ids
from pipelines.loop.window.stage import WindowArtefact
from pipelines.serve.config import log_url
from pipelines.serve.log.labels import LabelLog
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.stages.register import BundleArtefact, Register
from pipelines.store.records import Journal, StoredLedger

_NOTHING_STORED = "Nothing was stored"


@dataclass(frozen=True)
class DrawnItem:
    """An item for an annotator; `id` is `request id/item`; text and image if they are stored.

    `probability` is the probability with which it was drawn.
    """

    id: str
    probability: float
    state: State
    label: str | None
    text: str | None
    image: bytes | None
    task: str | None


@dataclass(frozen=True)
class DrawnItems:
    """The items that a plan draws from a window, whose certify decisions are `judged`, and their labels in the log.

    Raises LogUnavailableError if the log fails; a store is all or nothing.
    """

    log: LabelLog
    plan: LabelPlan
    judged: JudgedWindow
    window: WindowArtefact

    @cached_property
    def probabilities(self) -> dict[str, float]:
        """The probability of each item by id, in order; without items that were deleted from the log."""
        places, forgotten_items = drawn_places(self.judged, self.plan), self.log.forgotten()
        pairs = zip(self.judged.items[places], self.plan.probability(self.judged)[places].tolist(), strict=True)
        return {item: probability for item, probability in pairs if item not in forgotten_items}

    def items(self) -> list[DrawnItem]:
        """The items in order."""
        table, states = self.window.table, self.states()
        places = pc.index_in(pa.array(list(states), pa.string()), value_set=row_ids(table).combine_chunks())
        contents = table.select(["text", "image", "task"]).take(places).to_pylist()
        entries = zip(self.probabilities.items(), states.values(), contents, strict=True)
        return [DrawnItem(item, probability, *state, **content) for (item, probability), state, content in entries]

    def answer(self, answers: Mapping[str, str | None]) -> None:
        """Store labels of items by id; None skips an item.

        Raises DataError, and stores nothing, for ids that are not drawn and labels outside the list.
        """
        for item, label in answers.items():
            if item not in self.probabilities:
                raise DataError("this item needs no label", where=f"item {item}", hint=_NOTHING_STORED)
            if label is not None and label not in self.plan.labels:
                raise DataError(f"{label!r} is not in the list of labels", where=f"item {item}", hint=_NOTHING_STORED)
        self.log.store(answers, self.probabilities)

    def states(self) -> dict[str, tuple[State, str | None]]:
        """State and label of each item by id, in order."""
        labels_by_item = self.log.labels()
        return {
            item: (("skipped" if labels_by_item[item] is None else "labelled"), labels_by_item[item])
            if item in labels_by_item
            else ("drawn", None)
            for item in self.probabilities
        }

    @cached_property
    def tests(self) -> tuple[LabelTest, ...]:
        """The tests that the labels serve."""
        return label_tests(self.judged, self.plan)

    def standing(self) -> Standing:
        """How far the labels so far certify the policy."""
        return standing_of(self.tests, self.states())

    def certified_policy(self) -> Policy:
        """The policy that the labels so far certify: the searched policy, or a stricter one."""
        policy, labels = self.plan.policy, self.states()
        is_certified = {test.task: test.certified(labels) for test in self.tests}
        decisions = {task: is_certified.get(task, ESCALATE_ALL) for task in policy.task_decisions}
        return policy.model_copy(update={"decision": is_certified.get(None, ESCALATE_ALL), "task_decisions": decisions})

    def given(self) -> GivenLabels:
        """The labels as they stand, for a certificate."""
        return GivenLabels(plan=self.plan, answers=self.states())


@dataclass(frozen=True)
class LabelledChallenger:
    """A challenger whose certificate keeps less than its search wanted, so labels may help."""

    version: str
    bundle: BundleArtefact
    evaluated: EvaluatedArtefact
    searched: Policy

    @classmethod
    def of(cls, config: RunConfig, state: LoopState) -> LabelledChallenger:
        """The last turn's challenger, while it waits or has just won.

        Raises DataError if no labels are needed; the error says what to do.
        """
        turns = state.attempts.turns()
        current = state.champions.pointer.current()
        turn = turns[-1] if turns else None
        if current is None or turn is None or not turn["candidate"]:
            raise DataError(
                "no challenger waits for labels",
                where=config.name,
                hint="Run `kcm update` first: it trains a challenger",
            )
        if current.champion.digest not in (turn["champion_digest"], turn["digest"]):
            raise DataError(
                f"{current.champion.version} became the champion after {turn['version']} was trained",
                where=config.name,
                hint="Start `kcm update` again",
            )
        bundle = state.store.named(Register.stage, turn["candidate"]["bundle"]).as_a(BundleArtefact)
        evaluated = bundle.source(EvaluatedArtefact, Recertify.stage)
        name = evaluated.deployed
        searched = searched_policy(evaluated.policy(name), evaluated.certificates(name))
        if searched == evaluated.policy(name):
            raise DataError(
                f"{turn['version']} is certified with its searched policy: no label is needed", where=config.name
            )
        return cls(turn["version"], bundle, evaluated, searched)

    @property
    def attempt(self) -> str:
        """Names the draw of its labels."""
        return f"{self.evaluated.fingerprint}-labels"

    @property
    def window(self) -> WindowArtefact:
        """The window on which it is certified."""
        return self.evaluated.source(WindowArtefact, "window")

    @property
    def deployed(self) -> Policy:
        """The policy that its certificate allows without labels."""
        return self.evaluated.policy(self.evaluated.deployed)

    def judged(self) -> JudgedWindow:
        """The window's certify decisions with its answers."""
        file = self.evaluated.folder / self.evaluated.deployed / JUDGED
        return JudgedWindow.read(file).of_purpose("certify")

    def plan(self, config: RunConfig, state: LoopState) -> LabelPlan:
        """How its labels are drawn. The first call opens one look of the ledger for all its labels."""

        def planned(_: int) -> dict[str, object]:
            ledger = StoredLedger.of_lineage(state.store.control, config.name)
            return LabelPlan(
                attempt=self.attempt,
                application=config.application,
                version=self.version,
                policy=self.searched,
                labels=Bundle.read(self.bundle.bundle).answer_names,
                floor=self.window.facts.share_floor,
                epsilon=config.certificate.epsilon,
                delta=ledger.look(config.certificate.delta, self.attempt).spend,
                noise=config.update.label_noise if config.update else 0.0,
            ).model_dump(mode="json")

        entry = _plans(state).append(planned, same=lambda entry: bool(entry["attempt"] == self.attempt))
        return LabelPlan.model_validate(entry)


def searched_policy(policy: Policy, certificates: Mapping[str | None, Certificate]) -> Policy:
    """The policy that the search chose, before its certificates made it stricter."""
    tasks = {task: certificate.searched for task, certificate in certificates.items() if task is not None}
    return policy.model_copy(update={"decision": certificates[None].searched, "task_decisions": tasks})


@contextmanager
def drawn_for(config: RunConfig) -> Iterator[DrawnItems]:
    """The challenger's items that need labels. Raises DataError if none do."""
    state = LoopState.of(config)
    challenger = LabelledChallenger.of(config, state)
    with LabelLog(log_url(config.serve, config.storage_folder), LOG_TIMEOUT_S, config.application) as log:
        yield DrawnItems(log, challenger.plan(config, state), challenger.judged(), challenger.window)


def sufficient_labels(config: RunConfig, state: LoopState) -> GivenLabels | None:
    """The labels of the last turn's challenger if they certify the searched policy; None if they do not yet.

    Once all labels are given, they suffice if they certify a policy that keeps more than the deployed one. Opens no
    look in the ledger.
    """
    attempts = {entry["attempt"] for entry in _plans(state).entries()}
    if not attempts:
        return None
    try:
        challenger = LabelledChallenger.of(config, state)
    except DataError:
        return None
    if challenger.attempt not in attempts:
        return None
    with drawn_for(config) as items:
        plan_standing = items.standing()
        if plan_standing.certified:
            return items.given()
        if plan_standing.num_open or not plan_standing.stricter:
            return None
        window = challenger.judged()
        by_labels, deployed = (
            window.keeps(policy).mean() for policy in (items.certified_policy(), challenger.deployed)
        )
        return items.given() if by_labels > deployed else None


def _plans(state: LoopState) -> Journal:
    """The records of a run's label plans."""
    return Journal(state.store.control, f"loop/{state.name}/labels")
