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
)
from pipelines.loop.state import LOG_TIMEOUT_S, LoopState
from pipelines.loop.window.certify import JUDGED, Recertify
from pipelines.loop.window.judged_window import JudgedWindow, row_ids
from pipelines.loop.window.stage import WindowArtefact
from pipelines.serve.config import log_url
from pipelines.serve.log.labels import LabelLog
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.stages.parent import BundleArtefact
from pipelines.stages.register import Register
from pipelines.store.records import StoredLedger

_NOTHING_STORED = "Nothing was stored"
_LOOK = "-labels"  # the end of the names of looks behind labels


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
        return Standing.of(self.tests, self.states())

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
    """The last turn's challenger, whose certificate keeps less than its search wanted, so labels may help.

    Raises DataError if it is no challenger any longer, and if it needs no labels.
    """

    version: str
    bundle: BundleArtefact
    evaluated: EvaluatedArtefact

    @classmethod
    def of(cls, config: RunConfig, state: LoopState) -> LabelledChallenger:
        """While it waits, or has just won."""
        turn = (state.attempts.turns() or [{"candidate": None}])[-1]
        champion = state.champions.present().champion.digest
        if not turn["candidate"] or champion not in (turn["champion_digest"], turn["digest"]):
            hint = "Run `kcm update`: it trains a challenger"
            raise DataError("no challenger waits for labels", where=config.name, hint=hint)
        bundle = state.store.named(Register.stage, turn["candidate"]["bundle"]).as_a(BundleArtefact)
        found = cls(turn["version"], bundle, bundle.source(EvaluatedArtefact, Recertify.stage))
        if found.searched == found.deployed:
            reason = f"{found.version} is certified with its searched policy: no label is needed"
            raise DataError(reason, where=config.name)
        return found

    @property
    def look(self) -> str:
        """Names the draw of its labels, and the look behind them."""
        return f"{self.evaluated.fingerprint}{_LOOK}"

    @property
    def deployed(self) -> Policy:
        """The policy that its certificate allows without labels."""
        return self.evaluated.policy(self.evaluated.deployed)

    @property
    def certificates(self) -> Mapping[str | None, Certificate]:
        """Its certificates without labels, by task."""
        return self.evaluated.certificates(self.evaluated.deployed)

    @property
    def searched(self) -> Policy:
        """The policy that the search chose, before its certificates made it stricter."""
        decisions = {task: certificate.searched for task, certificate in self.certificates.items()}
        return self.deployed.model_copy(update={"decision": decisions.pop(None), "task_decisions": decisions})

    @contextmanager
    def drawn(self, config: RunConfig, delta: float) -> Iterator[DrawnItems]:
        """Its items, whose labels may spend `delta`."""
        window = self.evaluated.source(WindowArtefact, "window")
        judged = JudgedWindow.read(self.evaluated.folder / self.evaluated.deployed / JUDGED).of_purpose("certify")
        plan = LabelPlan(
            attempt=self.look,
            version=self.version,
            policy=self.searched,
            labels=Bundle.read(self.bundle.bundle).answer_names,
            floor=window.facts.share_floor,
            epsilon=self.certificates[None].epsilon,
            delta=delta,
            noise=config.update.label_noise if config.update else 0.0,
        )
        with LabelLog(log_url(config.serve, config.storage_folder), LOG_TIMEOUT_S, config.application) as log:
            yield DrawnItems(log, plan, judged, window)


@contextmanager
def drawn_for(config: RunConfig) -> Iterator[DrawnItems]:
    """The challenger's items that need labels; the first call opens one look of the ledger for all its labels.

    Raises DataError if none do.
    """
    state = LoopState.of(config)
    challenger = LabelledChallenger.of(config, state)
    ledger = StoredLedger.of_lineage(state.store.control, config.name)
    with challenger.drawn(config, ledger.look(config.certificate.delta, challenger.look).spend) as items:
        yield items


def sufficient_labels(config: RunConfig, state: LoopState) -> GivenLabels | None:
    """The labels of the last turn's challenger if they certify the searched policy; None if they do not yet.

    Once all labels are given, they suffice if they certify a policy that keeps more than the deployed one. Opens no
    look in the ledger.
    """
    looks = StoredLedger.of_lineage(state.store.control, config.name).looks()
    spends = {look.digest: look.spend for look in looks if look.digest.endswith(_LOOK)}
    if not spends:
        return None
    try:
        challenger = LabelledChallenger.of(config, state)
    except DataError:
        return None
    if challenger.look not in spends:
        return None
    with challenger.drawn(config, spends[challenger.look]) as items:
        standing = items.standing()
        if not standing.certified and (standing.num_open or not standing.stricter):
            return None
        labelled, deployed = (items.judged.keeps(it).mean() for it in (items.certified_policy(), challenger.deployed))
        return items.given() if standing.certified or labelled > deployed else None
