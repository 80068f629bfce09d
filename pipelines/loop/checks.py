"""Stage `gates`: the promotion gates of a challenger that is trained, certified and bundled, in `gates.json`."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from kcm.bundle.bundle import Bundle
from kcm.bundle.frozen_models import load_large, with_first_labels
from kcm.config import Config
from kcm.errors import KcmError
from kcm.inputs.content import contents
from kcm.large import Item, UpstreamConfig
from kcm.tasks.splits import draw
from pipelines.context import Attempt, Context
from pipelines.loop.window.certify import JUDGED
from pipelines.loop.window.judged_window import JudgedWindow
from pipelines.loop.window.stage import WindowArtefact
from pipelines.registry import gates
from pipelines.registry.comparison import Version, against_champion, kept_on_old_tasks, probed
from pipelines.registry.gates import GateConfig, PromotionGate
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.stages.parent import BundleArtefact
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact, write_json
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact

GATES = "gates.json"
PANEL_SIZE = 32  # inputs that the large model is asked again, to notice another model behind its name


class Verdicts(Config):
    """`gates.json`: the gates, cheap ones first, and the share of the window's unlearned decisions that are kept.

    `calls_saved`: by the champion at the time, and by the challenger.
    """

    gates: list[PromotionGate]
    calls_saved: tuple[float, float]


class GatesArtefact(Artefact):
    """The verdicts of the promotion gates."""

    kind = "gates"

    @cached_property
    def verdicts(self) -> Verdicts:
        """The content of `gates.json`."""
        return Verdicts.model_validate(self.json(GATES))


class Examine(Stage, Plan):
    """`gates.json`, against a champion and these limits; `upstreams` are the servers that the large model may ask."""

    stage, version, unit = "gates", 4, "gates"
    reads, writes = ("window", "features", "outcomes", "evaluated", "bundle"), GatesArtefact

    champion: str = Field(description="Fingerprint of the champion's bundle.")
    limits: GateConfig
    seed: int
    upstreams: tuple[UpstreamConfig, ...] = Field(exclude=True)

    def write(
        self,
        attempt: Attempt,
        window: WindowArtefact,
        features: FeaturesArtefact,
        outcomes: OutcomesArtefact,
        evaluated: EvaluatedArtefact,
        bundle: BundleArtefact,
    ) -> None:
        """The verdicts; a bundle that does not answer a probe is not measured."""
        new = Version(Bundle.read(bundle.bundle), features, outcomes)
        old = replace(new, bundle=self.parent.bundle)  # the challenger has these rows too
        challenger, champion = new.bundle, old.bundle
        context, limits, name = attempt.context, self.limits, evaluated.deployed
        judged_window = JudgedWindow.read(evaluated.file(JUDGED)).of_purpose("certify", "test")
        policy, certificate, facts = evaluated.policy(name), challenger.certificates[None], window.facts
        kept_before, kept_after = judged_window.champion_kept, judged_window.keeps(policy)
        savings = [float(kept_N.mean()) if len(judged_window) else 0.0 for kept_N in (kept_before, kept_after)]
        examined = [probed(challenger, context.assets_path)]
        if examined[0].verdict != "fail":
            examined.append(self.panel(challenger, features, outcomes, champion.task_names, context))
            loss = judged_window.champion_loss(champion.policy, facts.share_floor, certificate.delta, facts.new_labels)
            holds = gates.promise_kept(loss, certificate.epsilon, facts.signs, certified=bool(champion.certificates))
            keeps = champion.policy.lowest_cut < np.inf
            is_silent = bool(facts.signs)  # after an alarm the service escalates everything
            kept_by_side = kept_before, kept_after
            compared = against_champion(old, new, kept_by_side, judged_window.unit, limits)
            examined += [
                holds,
                gates.certified(certificate, repairs=is_silent and bool(facts.new_labels)),
                *gates.against(holds, compared, keeps=keeps),
            ]
            if not is_silent and champion.certificates:  # what is kept without a promise is no saving
                more_units = max(0, certificate.fewest_units - certificate.num_units)
                examined.append(gates.old_calls(*kept_on_old_tasks(old, new), more_units))
        verdicts = Verdicts(gates=examined, calls_saved=(savings[0], savings[1]))
        write_json(attempt.folder / GATES, verdicts.model_dump(mode="json"))

    def panel(
        self,
        challenger: Bundle,
        features: FeaturesArtefact,
        outcomes: OutcomesArtefact,
        tasks: Sequence[str],
        context: Context,
    ) -> PromotionGate:
        """Ask the large model the same questions twice, bypassing every response cache.

        The questions are of the champion's `tasks`, the first ones, and offer the original label list.
        """
        num_labels = _num_labels(outcomes, 0)  # a list only grows
        same_list = [number for number in range(len(tasks)) if _num_labels(outcomes, number) == num_labels]
        questions = panel_questions(features, outcomes, same_list, PANEL_SIZE, self.seed)
        items = [item for item, _ in questions]

        def answers() -> NDArray[np.int64]:
            """By a model that is loaded for them: it has a response cache."""
            models = with_first_labels(challenger, num_labels, context.assets_path, self.upstreams)
            model = load_large(models, context.assets_path, context.cluster.device, upstreams=self.upstreams)
            labels = [answer.label for answer in model.answer(items)]
            return np.array([-1 if label is None else label for label in labels], dtype=np.int64)

        try:
            first, second = answers(), answers()
        except KcmError as error:
            return PromotionGate(name="panel", verdict="fail", reason=str(error))
        earlier = np.array([label for _, label in questions], dtype=np.int64)
        return gates.replay_panel(earlier, first, second)


def panel_questions(
    features: FeaturesArtefact, outcomes: OutcomesArtefact, tasks: Sequence[int], size: int, seed: int
) -> list[tuple[Item, int]]:
    """Test rows of these tasks with the index of the large model's earlier answer.

    They are drawn by id: the same rows as long as the tasks are the same.
    """
    questions: list[tuple[float, Item, int]] = []
    for number in tasks:
        answers = outcomes.task(number, split="test").select(["id", "large_label", "large_error"])
        rows = features.sequence.task(number).select(["id", "text", "image"])
        row_contents = contents(rows["text"].to_pylist(), rows["image"].to_pylist())
        content = dict(zip(rows["id"].to_pylist(), row_contents, strict=True))
        questions += [
            (draw(seed, "panel", name), Item(name, content[name]), label)
            for name, label, error in zip(*answers.to_pydict().values(), strict=True)
            if not error and name in content
        ]
    return [(item, label) for _, item, label in heapq.nsmallest(size, questions, key=lambda entry: entry[0])]


def _num_labels(outcomes: OutcomesArtefact, number: int) -> int:
    """The length of the label list that the large model chose from when it answered the rows of a task."""
    column = pq.read_schema(outcomes.readable(outcomes.shards(number)[0].name)).field("large_probabilities")
    return int(column.type.list_size)
