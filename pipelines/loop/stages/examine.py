"""Stage `gates`: the promotion gates of a challenger that is trained, certified and bundled, in `gates.json`."""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from kcm.bundle.bundle import Bundle
from kcm.bundle.models import load_encoder, load_large, with_first_labels
from kcm.bundle.runtime import SmallSide
from kcm.certify.certificate import CertificateConfig
from kcm.errors import KcmError
from kcm.inputs.content import contents
from kcm.large import Item, LargeConfig, LargeModel, UpstreamConfig
from kcm.tasks.hashing import draw
from pipelines.context import Attempt, Context
from pipelines.loop.certify.judged import JudgedWindow
from pipelines.loop.config import UpdateConfig
from pipelines.loop.stages.reevaluate import JUDGED
from pipelines.registry import gates
from pipelines.registry.comparison import Version, latencies, old_tasks, probed
from pipelines.registry.config import GateConfig
from pipelines.registry.gates import PromotionGate
from pipelines.serve.config import ServeConfig
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.stages.register import BundleArtefact
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact, write_json
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact

GATES = "gates.json"


class GatesArtefact(Artefact):
    """The verdicts of the promotion gates, and the calls that were and would have been saved on the window."""

    kind = "gates"

    @property
    def gates(self) -> list[PromotionGate]:
        """The verdicts, the cheap ones first."""
        return [PromotionGate.model_validate(each) for each in self._content["gates"]]

    @property
    def calls_saved(self) -> tuple[float, float]:
        """The share of the window's unlearned decisions that champion and challenger keep."""
        before, after = self._content["calls_saved"]
        return before, after

    @property
    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / GATES).read_text(encoding="utf-8"))
        return content


class Examination(Plan):
    """The limits, and the champion that the challenger is compared with."""

    champion: str
    certificate: CertificateConfig
    limits: GateConfig
    seed: int
    parent: Any = Field(exclude=True)  # the champion's BundleArtefact
    upstreams: tuple[UpstreamConfig, ...] = Field(exclude=True)

    def write(
        self,
        attempt: Attempt,
        features: FeaturesArtefact,
        outcomes: OutcomesArtefact,
        evaluated: EvaluatedArtefact,
        bundle: BundleArtefact,
    ) -> None:
        """The verdicts."""
        new = Version(Bundle.read(bundle.bundle), features, outcomes)
        old = replace(new, bundle=Bundle.read(self.parent.bundle))  # its rows are among those of the challenger
        challenger, champion = new.bundle, old.bundle
        context, limits = attempt.context, self.limits
        name = next(iter(evaluated.result))
        judged = JudgedWindow.read(evaluated.folder / name / JUDGED).of_purpose("certify", "test")
        certificate = challenger.certificates[None]
        saved = [float(judged.champion_kept.mean()), float(judged.keeps.mean())] if len(judged) else [0.0, 0.0]
        found = [probed(challenger, context.assets_path)]
        if found[0].verdict == "fail":  # what does not answer need not be measured
            _write(attempt.folder, found, saved)
            return
        if limits.panel_size:
            found.append(self.panel(challenger, features, outcomes, champion.task_names, context))
        found += [
            gates.old_tasks(old_tasks(old, new), limits.max_old_task_loss),
            gates.certified(certificate),
            gates.call_rate(
                ~judged.champion_kept,
                ~judged.keeps,
                judged.unit,
                max_call_rate=self.certificate.max_call_rate,
                bound=certificate.call_rate_bound,
            ),
            _cost(judged, new.answered.seconds, limits.max_cost),
            gates.latency(*_latencies(champion, challenger, context), limits.max_latency),
        ]
        _write(attempt.folder, found, saved)

    def panel(
        self,
        challenger: Bundle,
        features: FeaturesArtefact,
        outcomes: OutcomesArtefact,
        tasks: Sequence[str],
        context: Context,
    ) -> PromotionGate:
        """Ask the large model twice what it answered before, outside of every cache of answers.

        The question is that of then: labels that came later are not offered.
        """
        old = [number for number, name in enumerate(features.names.tasks) if name in tasks]
        num_labels = min(_num_labels(outcomes, number) for number in old)
        old = [number for number in old if _num_labels(outcomes, number) == num_labels]
        asked = _panel_rows(features, outcomes, old, self.limits.panel_size, self.seed)
        items = [Item(row.id, row.content) for row in asked]

        def load() -> LargeModel:
            device = context.cluster.device
            models = with_first_labels(challenger, num_labels, context.assets_path, self.upstreams)
            return load_large(models, context.assets_path, device, upstreams=self.upstreams)

        try:
            model = load()
            first = _labels(model, items)
            again = model if challenger.large.upstream is None else load()  # else from its memory of answers
            second = _labels(again, items)
        except KcmError as error:
            return PromotionGate(name="panel", verdict="fail", reason=str(error))
        return gates.replay_panel(np.array([row.label for row in asked], dtype=np.int64), first, second)


class Examine(Stage):
    """`gates.json`."""

    stage, version, unit = "gates", 1, "gates"
    reads, writes = ("features", "outcomes", "evaluated", "bundle"), GatesArtefact

    certificate: CertificateConfig
    update: UpdateConfig
    serve: ServeConfig
    large: LargeConfig
    seed: int
    parent: Any  # the champion's BundleArtefact

    def plan(self, context: Context, bundle: BundleArtefact, **reads: Any) -> Examination:
        """The limits, for this champion."""
        upstreams = self.serve.large.upstreams
        if self.large.upstream is not None:
            upstreams = (*upstreams, self.large.upstream)
        return Examination(
            champion=self.parent.fingerprint,
            certificate=self.certificate,
            limits=self.update.gates,
            seed=self.seed,
            parent=self.parent,
            upstreams=upstreams,
        )


def _write(folder: Path, found: Sequence[PromotionGate], saved: Sequence[float]) -> None:
    content = {"gates": [gate.model_dump(mode="json") for gate in found], "calls_saved": list(saved)}
    write_json(folder / GATES, content)


@dataclass(frozen=True)
class _Asked:
    """An input that the large model has answered before."""

    id: str
    content: Any
    label: int


def _panel_rows(
    features: FeaturesArtefact, outcomes: OutcomesArtefact, tasks: Sequence[int], size: int, seed: int
) -> list[_Asked]:
    """The rows of the panel: test rows of these tasks, drawn by their ids, the same as long as the tasks are."""
    sequence = features.sequence.load()
    known: list[tuple[float, _Asked]] = []
    for number in tasks:
        answers = outcomes.task(number, split="test").select(["id", "large_label", "large_error"])
        rows = sequence.rows(number).select(["id", "text", "image"])
        content = dict(
            zip(rows["id"].to_pylist(), contents(rows["text"].to_pylist(), rows["image"].to_pylist()), strict=True)
        )
        for row in answers.to_pylist():
            if not row["large_error"] and row["id"] in content:
                known.append(
                    (draw(seed, "panel", row["id"]), _Asked(row["id"], content[row["id"]], row["large_label"]))
                )
    return [asked for _, asked in heapq.nsmallest(size, known, key=lambda each: (each[0], each[1].id))]


def _num_labels(outcomes: OutcomesArtefact, number: int) -> int:
    """The length of the label list that the large model chose from when it answered the rows of a task."""
    column = pq.read_schema(outcomes.readable(outcomes.shards(number)[0].name)).field("large_probabilities")
    return int(column.type.list_size)


def _labels(model: LargeModel, items: Sequence[Item]) -> NDArray[np.int64]:
    """The labels of a large model's answers, -1 where it gave none."""
    return np.array([-1 if each.label is None else each.label for each in model.answer(items)], dtype=np.int64)


def _cost(judged: JudgedWindow, seconds: tuple[float, float], max_ratio: float) -> PromotionGate:
    """What an answer costs on the window, by the seconds of both sides on test rows."""
    small_s, large_s = seconds
    called = ((~judged.champion_kept).mean(), (~judged.keeps).mean()) if len(judged) else (0.0, 0.0)
    before, after = (small_s + float(share) * large_s for share in called)
    return gates.cost(before, after, max_ratio)


def _latencies(champion: Bundle, challenger: Bundle, context: Context) -> tuple[float, float]:
    """Seconds that the small sides take for an input, with the one encoder that both have."""
    encoder = load_encoder(challenger, context.assets_path)
    return latencies(SmallSide(champion, encoder), SmallSide(challenger, encoder))
