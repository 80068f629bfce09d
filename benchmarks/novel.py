"""The loop meets intents that nobody has told it of: CLINC150 with 100 known intents and 50 that come in five waves.

    python benchmarks/novel.py --clinc data_full.json [--quick] [--seeds 10]

The first champion is trained on 50 rows of each known intent. Its traffic holds the known intents, those of earlier
waves, and the ten of a new wave. A tenth of the items is labelled by callers, one label in twenty wrongly; a twentieth
of what is kept is audited. The alarms of a service bet on disagreement, after which all is escalated, and on items far
from all known classes, after which those are. After a stretch of traffic the loop takes a turn, at most two a wave;
before it a person names the wave's intents once, and the large model answers from the longer list.

Learning, gate, policy, certificates, gates and alarms are the product's own functions; its storage, log and service are
left out. The large model is played: of what it has a label for it errs on a quarter of the hard items, those nearest to
the mean of another intent; for anything else it names the listed intent whose mean lies nearest.

`--quick` plays three seeds. The last line is one line of JSON:

    waves           of new intents; waves_promoted: those with a challenger that was promoted within two turns
    kept_known      share of the other items that were kept, over all turns; right_new: right of what is kept of a wave
    kept_unseen     share of a wave's items that were kept before they were learned
    expected_unseen what left-out classes had said of that share, once the wave is noticed
    streams         seeds, each with 20 draws of its windows' audits; broken: those that lost more than was promised
    noticed         waves for which far items raised an alarm, after so many new ones on average: delay
    first_known     share of known items that the first champion kept, while the first wave came; first_unseen: of it
    saved           calls saved on held-out items by the last champion; saved_of_full: over those of all rows at once
    saved_quiet     calls saved in a stream of known intents, over those of a loop that escalates none for its distance
    auroc           how well scores tell CLINC150's out-of-scope test questions from the others, all intents learned
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.script import options
from benchmarks.study.rows import batch, text_vectors
from kcm.bundle.runtime import logits
from kcm.cascade.gate import Gate, fit_gate
from kcm.cascade.novelty import NovelRows, Novelty
from kcm.cascade.outcome_rows import OutcomeTable, ScoredOutcomes
from kcm.cascade.policy import Policy
from kcm.cascade.reference import Reference
from kcm.cascade.search import find_policy
from kcm.certification.certificate import Certificate, CertificateConfig, certify
from kcm.certification.ledger import look_delta, question_delta
from kcm.certification.monitoring.alarm import RateAlarm
from kcm.certification.monitoring.novelty import ALARM_DELTA, NoveltyReference
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.learners.analytic import AnalyticConfig
from kcm.learners.base import Batch
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.stream import TensorRows
from kcm.learners.training.trainer import trainer_of
from kcm.metrics.calibration import fit_temperature
from kcm.tasks.splits import SPLITS, Split, purpose
from pipelines.loop.build import NOVEL_SHARE
from pipelines.loop.window.certify import can_certify_window, certify_window
from pipelines.loop.window.judged_window import JudgedWindow
from pipelines.loop.window.stage import WindowFacts
from pipelines.registry import gates
from pipelines.registry.gates import GateConfig, Paired, PromotionGate

WAVES, A_WAVE = 5, 10  # waves, and intents of a wave; all other intents are known
FIRST_ROWS, HELD_OUT = 50, 20  # rows of an intent: for the first table, and held out from all traffic
FEEDBACK, WRONG_FEEDBACK, AUDITS = 0.1, 0.05, 0.05
WRONG_LARGE = 0.25  # share of wrong answers on items nearer to another intent's mean
TURNS = 2  # most turns of a wave
KNOWN_ROWS, NEW_ROWS, OLD_ROWS = 5, 30, 10  # rows of an intent in a stretch: known, of this wave, of an earlier wave
QUIET_TURNS, QUIET_ROWS = 5, 10  # a stream without new intents: stretches, rows of an intent in each
REQUEST = 50
REDRAWS = 20  # of every window's audits
FIRST_TABLE = {"train": 0.5, "validate": 0.15, "certify": 0.15, "test": 0.2}
WINDOW = {"train": 0.25, "validate": 0.1, "certify": 0.55, "test": 0.1}
NETWORK = NetworkConfig(hidden=[], basis="quadratic", mixing=1024)
CERTIFICATE, LIMITS, MAX_LOSS = CertificateConfig(), GateConfig(), 0.005
START = datetime(2026, 1, 1, tzinfo=UTC)

say = partial(print, file=sys.stderr, flush=True)
Ints, Bools = NDArray[np.int64], NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Items:
    """Rows of CLINC150: text, intent and split [N], and MiniLM's features [N, D]; equal texts are one."""

    text: list[str]
    intent: NDArray[np.str_]
    split: NDArray[np.str_]
    features_ND: NDArray[np.float32]

    @classmethod
    def of(cls, clinc: Path, assets: Path, cache: Path, names: Sequence[str] = ("train", "val", "test")) -> Items:
        """The rows of these splits, encoded once."""
        splits = json.loads(clinc.read_text(encoding="utf-8"))
        rows = {text: (intent, name) for name in names for text, intent in splits[name]}
        intent, split = map(np.array, zip(*rows.values(), strict=True))
        return cls(list(rows), intent, split, text_vectors(list(rows), assets, cache))


class Stream:
    """One seed: which intents are known and which come when, who errs, and which rows are still to be sent.

    `label_N` numbers intents in the order in which they become known.
    """

    def __init__(self, items: Items, seed: int, waves: int) -> None:
        self.items, self.seed, self.waves, self.random = items, seed, waves, np.random.default_rng(seed)
        self.names = self.random.permutation(np.unique(items.intent)).tolist()
        self.known = range(len(self.names) - waves * A_WAVE)
        self.label_N: Ints = pd.Index(self.names).get_indexer(items.intent).astype(np.int64)
        mean_CD = np.stack([items.features_ND[self.label_N == c].mean(0) for c in range(len(self.names))])
        self._order_NC = np.argsort(-(items.features_ND @ mean_CD.T), axis=1)
        hard_N = self._order_NC[:, 0] != self.label_N
        self._errs_N = hard_N & (self.random.random(len(items.text)) < WRONG_LARGE)
        self.errs = float(self._errs_N.mean())
        order = self.random.permutation(len(items.text))
        self._rows = {c: order[self.label_N[order] == c] for c in range(len(self.names))}
        self.held_out = self.take(range(len(self.names)), HELD_OUT)

    def take(self, labels: Sequence[int], count: int) -> Ints:
        """Rows of intents that were not taken before, `count` of each, in random order."""
        rows = np.concatenate([self._rows[label][:count] for label in labels])
        self._rows |= {label: self._rows[label][count:] for label in labels}
        return self.random.permutation(rows)

    def wave(self, number: int) -> range:
        """The labels of a wave."""
        first = self.known.stop + number * A_WAVE
        return range(first, first + A_WAVE)

    def stretch(self, number: int) -> Ints:
        """Rows of traffic while a wave comes in."""
        parts = [self.take(self.known, KNOWN_ROWS), self.take(self.wave(number), NEW_ROWS)]
        parts += [self.take(self.wave(earlier), OLD_ROWS) for earlier in range(number)]
        return self.random.permutation(np.concatenate(parts))

    def large(self, rows: Ints, num_labels: int) -> Ints:
        """The large model's answers from a list of the first `num_labels` labels."""
        truth_N, order_NC = self.label_N[rows], self._order_NC[rows]
        listed_NC = (order_NC < num_labels) & (order_NC != truth_N[:, None])
        other_N = order_NC[np.arange(len(rows)), listed_NC.argmax(1)]
        return np.where((truth_N < num_labels) & ~self._errs_N[rows], truth_N, other_N)

    def feedback(self, rows: Ints, num_labels: int) -> Ints:
        """What callers say, -1 where they say nothing."""
        given_N = np.where(
            self.random.random(len(rows)) < WRONG_FEEDBACK,
            self.random.integers(num_labels, size=len(rows)),
            self.label_N[rows],
        )
        return np.where(self.random.random(len(rows)) < FEEDBACK, given_N, -1)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a split of a task, with the labels that are taken for true."""

    row: Ints
    label: Ints


Task = Mapping[Split, Rows]


@dataclass(frozen=True, eq=False)
class Version:
    """A cascade: what it was trained on, its networks, gate and deployed policy."""

    tasks: Sequence[Task]
    num_labels: int
    state: Mapping[str, Any]
    collaborator: Collaborator
    gate: Gate
    policy: Policy
    novel: NovelRows  # validate rows as if their class had never been learned
    novelty: Novelty

    def judge(self, items: Items, rows: Ints) -> tuple[NDArray[np.float64], Ints]:
        """Gate scores and small answers [N]."""
        features_ND = items.features_ND[rows]
        judge_NC, small_NC = logits(self.collaborator, features_ND)
        return self.gate.score(features_ND, judge_NC, small_NC), small_NC.argmax(1)

    def distances(self, items: Items, rows: Ints) -> NDArray[np.float64]:
        """The distances from all known classes [N]."""
        return self.novelty.distances(logits(self.collaborator, items.features_ND[rows])[0])

    @property
    def farthest(self) -> float:
        """From which distance on items escalate once new classes are noticed."""
        farthest = self.novel.farthest(self.policy.decision.cut)
        return np.inf if farthest is None else farthest

    def right(self, stream: Stream, rows: Ints) -> tuple[Bools, Bools]:
        """Masks of kept items and of the cascade's right answers, [N] each."""
        score_N, small_N = self.judge(stream.items, rows)
        kept_N, truth_N = self.policy.keep(score_N), stream.label_N[rows]
        return kept_N, np.where(kept_N, small_N, stream.large(rows, self.num_labels)) == truth_N


def learned(stream: Stream, tasks: Sequence[Task], num_labels: int, parent: Version | None = None) -> Version:
    """Networks that have learned the parent's tasks and one more, with gate and policy from validate rows."""
    items, learner = stream.items, AnalyticConfig(name="analytic").build(stream.seed)
    collaborator = Collaborator(items.features_ND.shape[1], num_labels, NETWORK, "kan", stream.seed)
    rows = [
        TensorRows(f"task {number}", {split: _batch(items, task[split]) for split in ("train", "test")})
        for number, task in enumerate(tasks)
    ]
    trainer = trainer_of(collaborator, learner, rows, TrainConfig(mask_unseen=True), DistillConfig(), seed=stream.seed)
    if parent is not None:
        trainer.load_state_dict(dict(parent.state))
    trainer.run()
    state, collaborator = trainer.state_dict(), trainer.collaborator.eval()
    table, features_ND = _table(stream, collaborator, tasks, num_labels)
    judge_NC, small_NC = (torch.from_numpy(logits) for logits in (table.judge_logits, table.small_logits))
    calibrated = trainer.learner.without_own_class(judge_NC, small_NC, torch.from_numpy(table.label))
    assert calibrated is not None
    gate_fit = fit_gate(
        "signals",
        fit_temperature(table.judge_logits, table.label),
        table,
        features_ND,
        reference=Reference.of(collaborator, state["learner"]),
        seed=stream.seed,
    )
    novelty = Novelty.of(state["learner"])
    assert novelty is not None
    judge_NC, small_NC = (logits.numpy() for logits in calibrated)
    share = 0.0 if parent is None else NOVEL_SHARE  # the default of a run and an update
    novel = NovelRows(gate_fit.gate.score(features_ND, judge_NC, small_NC), novelty.distances(judge_NC), share)
    policy = find_policy(ScoredOutcomes.of(table, gate_fit.scores), gate_fit.gate, "global", MAX_LOSS, novel)
    return Version(tasks, num_labels, state, collaborator, gate_fit.gate, policy.policy, novel, novelty)


def first_version(stream: Stream, rows: Ints, num_labels: int) -> Version:
    """A cascade of a labelled table, certified on its certify rows, as `kcm run` makes it."""
    split_N = np.array([purpose("novel", stream.items.text[row], FIRST_TABLE) for row in rows])
    task = {split: Rows(rows[split_N == split], stream.label_N[rows[split_N == split]]) for split in SPLITS}
    version = learned(stream, [task], num_labels)
    validate, rows_of_certify = (
        ScoredOutcomes.of(table, version.gate.score(features_ND, table.judge_logits, table.small_logits))
        for table, features_ND in (
            _table(stream, version.collaborator, [task], num_labels, split) for split in ("validate", "certify")
        )
    )
    certificate = certify(
        validate, rows_of_certify, version.policy.decision, CERTIFICATE, delta=question_delta(CERTIFICATE.delta, 1)
    )
    return replace(version, policy=version.policy.model_copy(update={"decision": certificate.route}))


def _batch(items: Items, rows: Rows) -> tuple[list[str], Batch]:
    return [str(row) for row in rows.row], batch(items.features_ND[rows.row], rows.label)


def _table(
    stream: Stream, collaborator: Collaborator, tasks: Sequence[Task], num_labels: int, split: Split = "validate"
) -> tuple[OutcomeTable, NDArray[np.float32]]:
    """The outcome table of a split of all tasks, and the features of its rows."""
    row_N = np.concatenate([task[split].row for task in tasks])
    features_ND = stream.items.features_ND[row_N]
    judge_NC, small_NC = logits(collaborator, features_ND)
    count = len(row_N)
    table = OutcomeTable(
        id=np.array([str(row) for row in row_N], dtype=object),
        task=np.full(count, "all", dtype=object),
        split=np.full(count, split, dtype=object),
        label=np.concatenate([task[split].label for task in tasks]),
        judge_logits=judge_NC.astype(np.float64),
        small_logits=small_NC.astype(np.float64),
        large_label=stream.large(row_N, num_labels),
        large_probabilities=np.full((count, num_labels), np.nan),
        large_cost=np.full(count, 0.5),
        large_error=np.zeros(count, dtype=bool),
        group=np.full(count, None),
        label_names=tuple(stream.names[:num_labels]),
    )
    return table, features_ND


@dataclass
class Turn:
    """The champion's answers to a stretch of traffic, and the outcome of the turn after it."""

    wave: int
    expected: float  # share of new items that the champion should keep, by classes that were left out
    new: int = 0
    new_kept: int = 0
    known: int = 0
    known_kept: int = 0
    far: int = 0  # items that were escalated for their distance from all known classes alone
    noticed: int | None = None  # new items until the alarm that new classes came; None without one
    promoted: bool = False
    calls_saved: float = 0.0  # by the champion of then, on held-out items of all intents
    right_new: float | None = None  # of what it keeps of the wave's intents
    failed: dict[str, str] = field(default_factory=dict)


class Loop:
    """A stream through a champion, its log, and the turns of the loop."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        say(f"seed {stream.seed}: the large model is right on {1 - stream.errs:.1%} of what it has labels for")
        first = stream.take(stream.known, FIRST_ROWS)
        self.sent = [first]
        self.champion = first_version(stream, first, stream.known.stop)
        self.looks, self.broken = 0, np.zeros(REDRAWS, dtype=bool)
        self._begin()

    def _begin(self) -> None:
        """A new champion: an empty window, and alarms that have seen nothing."""
        self.window: list[pd.DataFrame] = []
        champion, stream = self.champion, self.stream
        rows = np.concatenate([task["certify"].row for task in champion.tasks])
        self.reference = NoveltyReference.fit(champion.distances(stream.items, rows), None)
        self.news, self.farthest = RateAlarm(self.reference.limit, ALARM_DELTA), np.inf
        self.alarm, self.held = RateAlarm(CERTIFICATE.epsilon, CERTIFICATE.delta / 2), False

    def serve(self, rows: Ints, new_N: Bools, turn: Turn) -> None:
        """Answer rows and log them; from an alarm on all is escalated, and the window begins there."""
        for start in range(0, len(rows), REQUEST):
            part, stream = rows[start : start + REQUEST], self.stream
            score_N, small_N = self.champion.judge(stream.items, part)
            distance_N = self.champion.distances(stream.items, part)
            kept_N = self.champion.policy.keep(score_N) & (not self.held)
            far_N = kept_N & (distance_N >= self.farthest)
            kept_N &= ~far_N
            turn.far += int(far_N.sum())
            drawn_N = kept_N & (stream.random.random(len(part)) < AUDITS)
            large_N = stream.large(part, self.champion.num_labels)
            fresh_N = new_N[start : start + REQUEST]
            turn.new += int(fresh_N.sum())
            turn.new_kept += int((fresh_N & kept_N).sum())
            turn.known += int((~fresh_N).sum())
            turn.known_kept += int((~fresh_N & kept_N).sum())
            decisions = {
                "row": part,
                "route": np.where(kept_N, "small", "large"),
                "probability": np.where(kept_N, AUDITS, 1.0),
                "state": pd.Series(np.where(drawn_N, "answered", None), dtype=object),
                "asked": ~kept_N | drawn_N,
                "gate_score": score_N,
                "small": small_N,
            }
            self.window.append(pd.DataFrame(decisions))
            if not self.held:
                lost_N = drawn_N & (large_N != small_N)
                self.alarm.observe(np.where(lost_N, 1 / AUDITS, 0.0), np.full(len(part), AUDITS))
                if self.alarm.alarm:
                    self.held, self.window = True, []
            self.news.observe((distance_N > self.reference.threshold).astype(np.float64))
            if self.news.alarm and turn.noticed is None:
                self.farthest, turn.noticed = self.champion.farthest, turn.new

    def turn(self, num_labels: int) -> list[PromotionGate]:
        """One turn of the loop, with a label list of this length; the gates, and a new champion where they pass."""
        stream, champion = self.stream, self.champion
        log = pd.concat(self.window, ignore_index=True)
        rows = log["row"].to_numpy()
        names, texts = np.array(stream.names, dtype=object), [stream.items.text[row] for row in rows]
        answers_N = stream.large(rows, num_labels)  # asked again, from the longer list
        said_N, asked_N = stream.feedback(rows, num_labels), log["asked"].to_numpy()
        purpose_N = np.array([purpose("novel", text, WINDOW) for text in texts])
        learned_labels = {"train": np.where(said_N >= 0, said_N, answers_N)}
        task = {
            split: Rows(rows[is_chosen], learned_labels.get(split, answers_N)[is_chosen])
            for split in SPLITS
            for is_chosen in [(purpose_N == split) & (asked_N | (said_N >= 0) & (split == "train"))]
        }
        challenger = learned(stream, [*champion.tasks, task], num_labels, champion)
        table = log.assign(
            request_id=[str(number) for number in range(len(log))],
            item=0,
            unit=texts,
            task=None,
            purpose=purpose_N,
            small_label=names[log["small"].to_numpy()],
            large_label=np.where(asked_N, names[answers_N], None),
            answered_at=[START + timedelta(seconds=number) for number in range(len(log))],
        )
        score_N, small_N = challenger.judge(stream.items, rows)
        window = JudgedWindow(table.assign(challenger_score=score_N, challenger_label=names[small_N]))
        floor = float(log["probability"].min())
        facts = WindowFacts(
            application="novel",
            after=0,
            upto=len(log),
            large_identity="played",
            share_floor=floor,
            num_decisions=len(log),
        )
        certify = window.of_purpose("certify")
        delta = look_delta(CERTIFICATE.delta, self.looks + 1)
        self.looks += can_certify_window(certify, challenger.policy, CERTIFICATE, facts, delta)
        limits: dict[str, Any] = {"delta": delta, "expires_at": START + timedelta(days=30)}
        deployed, certificates = certify_window(certify, challenger.policy, CERTIFICATE, facts, **limits)
        self.broken |= self._broken(certify, names[answers_N[purpose_N == "certify"]], challenger.policy, facts, limits)
        challenger = replace(challenger, policy=deployed)
        gate_results = self._gates(challenger, window.of_purpose("certify", "test"), certificates[None], floor)
        if gates.overall(gate_results) == "pass":
            self.champion = challenger
            self._begin()
        return gate_results

    def _broken(
        self, certify: JudgedWindow, answers: NDArray[Any], policy: Policy, facts: WindowFacts, limits: dict[str, Any]
    ) -> Bools:
        """In which of REDRAWS draws of the window's audits the certificate allows what loses more than epsilon."""
        random, violations = np.random.default_rng(self.looks), []
        for _ in range(REDRAWS):
            asked_N = (certify.probability == 1) | (random.random(len(certify)) < AUDITS)
            state, large_N = np.where(asked_N, "answered", None), np.where(asked_N, answers, None)
            redrawn = JudgedWindow(certify.rows.assign(state=state, large_label=large_N))
            deployed, _ = certify_window(redrawn, policy, CERTIFICATE, facts, **limits)
            lost_N = redrawn.keeps(deployed) & (redrawn.label != answers)
            violations.append(lost_N.mean() > CERTIFICATE.epsilon)
        return np.array(violations)

    def _gates(
        self, challenger: Version, window: JudgedWindow, certificate: Certificate, floor: float
    ) -> list[PromotionGate]:
        """The promotion gates, as `pipelines.loop.checks` puts them together."""
        champion, stream = self.champion, self.stream
        kept_by_side = window.champion_kept, window.keeps(challenger.policy)
        signs = ["its certificate is refuted"] if self.held else []
        new_labels = stream.names[champion.num_labels : challenger.num_labels]
        loss = window.champion_loss(champion.policy, floor, CERTIFICATE.delta, new_labels)
        holds = gates.promise_kept(loss, CERTIFICATE.epsilon, signs)
        paired = {
            f"task {number}": Paired(champion.right(stream, rows)[1], challenger.right(stream, rows)[1])
            for number, rows in enumerate(task["test"].row for task in champion.tasks)
        }
        compared = [
            gates.old_tasks(paired, LIMITS.max_old_task_loss),
            gates.call_rate(~kept_by_side[0], ~kept_by_side[1], window.unit),
        ]
        keeps = champion.policy.lowest_cut < np.inf
        repairs = bool(new_labels) and not holds.figures["feasible"]
        return [holds, gates.certified(certificate, repairs=repairs), *gates.against(holds, compared, keeps=keeps)]

    def play(self) -> dict[str, Any]:
        """Play all waves; returns their outcomes."""
        stream, turns = self.stream, list[Turn]()
        for wave in range(stream.waves):
            for _ in range(TURNS):
                rows, num_labels = stream.stretch(wave), stream.wave(wave).stop
                self.sent.append(rows)
                champion = self.champion
                # Once the first turn has promoted a challenger, a wave's items are no news any more.
                new_N = np.isin(stream.label_N[rows], stream.wave(wave)) & (champion.num_labels < num_labels)
                expected = float(champion.novel.kept(champion.policy.decision.cut, champion.farthest))
                turns.append(turn := Turn(wave, expected))
                self.serve(rows, new_N, turn)
                outcome = self.turn(num_labels)
                turn.promoted = gates.overall(outcome) == "pass"
                turn.failed = {gate.name: gate.reason for gate in outcome if gate.verdict != "pass"}
                kept_N, right_N = self.champion.right(stream, stream.held_out)
                late_N = kept_N & np.isin(stream.label_N[stream.held_out], stream.wave(wave))
                turn.calls_saved = float(kept_N.mean())
                turn.right_new = float(right_N[late_N].mean()) if late_N.any() else None
                say(f"seed {stream.seed} {turn}")
        full_version = first_version(stream, np.concatenate(self.sent), len(stream.names))
        kept_N, right_N = self.champion.right(stream, stream.held_out)
        full_kept_N, _ = full_version.right(stream, stream.held_out)
        return {
            "seed": stream.seed,
            "turns": [asdict(turn) for turn in turns],
            "saved": float(kept_N.mean()),
            "right": float(right_N[kept_N].mean()) if kept_N.any() else None,
            "full_saved": float(full_kept_N.mean()),
            "broken": int(self.broken.sum()),
        }


def quiet(stream: Stream) -> list[Turn]:
    """The turns of a loop over a stream of the known intents alone."""
    loop, turns = Loop(stream), list[Turn]()
    for _ in range(QUIET_TURNS):
        rows = stream.take(stream.known, QUIET_ROWS)
        turns.append(turn := Turn(wave=0, expected=0.0))
        loop.serve(rows, np.zeros(len(rows), dtype=bool), turn)
        turn.promoted = gates.overall(loop.turn(stream.known.stop)) == "pass"
        say(f"seed {stream.seed}, nothing new: {turn}")
    return turns


def novelty(items: Items, out_of_scope: Items) -> dict[str, float]:
    """By gate score and distance, the area under the ROC curve of test questions without an intent against others."""
    stream = Stream(items, 0, 0)
    rows = (np.flatnonzero(items.split == name) for name in ("train", "val", "test"))
    train, validate, test = (Rows(row, stream.label_N[row]) for row in rows)
    version = learned(stream, [{"train": train, "validate": validate, "test": test}], len(stream.names))
    features_ND = np.concatenate([items.features_ND[test.row], out_of_scope.features_ND])
    judge_NC, small_NC = logits(version.collaborator, features_ND)
    scores = {
        "gate": -version.gate.score(features_ND, judge_NC, small_NC),
        "distance": version.novelty.distances(judge_NC),
    }
    novel_N = np.arange(len(features_ND)) >= len(test.row)
    return {name: round(roc_auc_score(novel_N, score_N), 4) for name, score_N in scores.items()}


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures over all seeds."""
    seeds = pd.DataFrame(runs)
    turns, quiet_turns = (pd.json_normalize(runs, part, "seed") for part in ("turns", "quiet"))
    waves, first = turns.groupby(["seed", "wave"]), turns.groupby("seed").head(1)
    noticed = turns[turns["noticed"].notna() & (turns["new"] > 0)]
    num_far, num_kept = quiet_turns["far"].sum(), quiet_turns["known_kept"].sum()

    def share(part: str, denominator: str, of: pd.DataFrame) -> float:
        return float(of[part].sum() / max(of[denominator].sum(), 1))

    figures = {
        "kept_unseen": share("new_kept", "new", turns),
        "kept_known": share("known_kept", "known", turns),
        "expected_unseen": float(np.average(turns["expected"], weights=turns["new"])),
        "delay": float(noticed["noticed"].mean()),
        "right_new": float(turns["right_new"].mean()),
        "first_unseen": share("new_kept", "new", first),
        "first_known": share("known_kept", "known", first),
        "saved": float(seeds["saved"].mean()),
        "saved_of_full": float((seeds["saved"] / seeds["full_saved"].clip(lower=1e-9)).mean()),
        "saved_quiet": float(num_kept / (num_kept + num_far)),
    }
    counts = {"waves": len(waves), "waves_promoted": int(waves["promoted"].any().sum())}
    counts |= {"streams": REDRAWS * len(seeds), "broken": int(seeds["broken"].sum())}
    counts["noticed"] = noticed.groupby(["seed", "wave"]).ngroups
    return counts | {name: round(value, 4) for name, value in figures.items()}


def main() -> None:
    """Play the seeds."""
    parser = options(__doc__, True, "storage/novel", data=("clinc",))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--waves", type=int, default=WAVES, help=f"of {A_WAVE} new intents each")
    parser.add_argument("--quick", dest="seeds", action="store_const", const=3, help="three seeds")
    arguments = parser.parse_args()
    places = arguments.clinc, arguments.assets, arguments.storage
    items = Items.of(*places)
    runs = []
    for seed in range(arguments.seeds):
        without_new = [asdict(turn) for turn in quiet(Stream(items, seed, arguments.waves))]
        runs.append(Loop(Stream(items, seed, arguments.waves)).play() | {"quiet": without_new})
        say({name: value for name, value in runs[-1].items() if name not in ("turns", "quiet")})
    print(json.dumps(summary(runs) | {"auroc": novelty(items, Items.of(*places, ["oos_test"]))}))


if __name__ == "__main__":
    main()
