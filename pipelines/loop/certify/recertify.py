"""Certifying a challenger on the certify decisions of a window of the log (METHOD.md, section 10).

Whatever would void the promise is refused before a figure is computed: decisions without version or probability, a
share of 0, too many decisions missing, units that trained anything, another large model, a window that reaches back
behind the last promotion or holds the alarm that called for it. Labels that people volunteered are never read.

Shapes: N decisions of certify units, in the order of their numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from kcm.cascade.policy import ESCALATE_ALL, Decision, Policy
from kcm.certify.certificate import CertificateConfig, CertifiedWindow, TrafficCertificate, certify_traffic
from kcm.certify.labelled import LabelledTraffic
from kcm.certify.traffic import Traffic, plan_bet, units_needed
from kcm.errors import DataError
from kcm.large.prompting.prompts import PromptMode
from kcm.tasks.hashing import draw
from pipelines.serve.log.records.standing import DisputedItem, LabelTest, outcome

MAX_MISSING = 0.001  # share of a window's decisions that may be missing from the log
_AHEAD = timedelta(days=1)  # by which a clock may be wrong


@dataclass(frozen=True, kw_only=True)
class WindowScope:
    """What is known of a window beside its rows.

    Its decisions have numbers in (`after`, `upto`]; `num_missing` of them and of all purposes never reached the log,
    `num_decisions` did. `promoted_after`: the last decision before the champion was promoted. `alarm`: the last
    decision that the alarm had seen which called for this attempt, if one did. `large_identity`: the large model that
    the challenger escalates to; `prompt`: what the champion showed it. `trained_units`: units that trained, tuned or
    chose anything in the challenger or its ancestors.
    """

    application: str
    after: int
    upto: int
    num_decisions: int
    num_missing: int = 0
    promoted_after: int = 0
    alarm: int | None = None
    large_identity: str
    prompt: PromptMode = "none"
    trained_units: Collection[str] = field(default=frozenset(), repr=False)
    expires_days: float = 30.0
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class LabelDraw:
    """How a frozen challenger's disagreements are drawn for labelling, and in what order units are decided.

    Kept items, whose large answer was asked for with the announced floor, are drawn with `probability`; others the less
    often, the likelier their large answer was. Draws and order are hashes of the attempt's name: known before a label
    is seen, the same on every machine, and the same where an answer of the large model comes later than the draw.
    """

    attempt: str
    probability: float = 1.0

    def probabilities(self, asked_N: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
        """rho of each item, [N], from the probabilities [N] of its large answer."""
        return np.asarray(self.probability * floor / asked_N)

    def drawn(self, items: Sequence[str], probabilities_N: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each item, `request id/item`, is put before a person where it is disputed, [N]."""
        return np.array([draw(0, f"label drawn {self.attempt}", item) for item in items]) < probabilities_N

    def order(self, units: Sequence[str]) -> NDArray[np.float64]:
        """The place of each item's unit, [N]."""
        place = {unit: draw(0, f"label order {self.attempt}", unit) for unit in dict.fromkeys(units)}
        return np.array([place[unit] for unit in units], dtype=np.float64)


def certify_window(
    window: pa.Table,
    scores_N: ArrayLike,
    small_labels_N: Sequence[str],
    policy: Policy,
    config: CertificateConfig,
    *,
    scope: WindowScope,
    floor: float,
    delta: float,
    bet: float,
    labels: LabelDraw | None = None,
) -> tuple[Policy, dict[str | None, TrafficCertificate]]:
    """The policy to deploy and its certificates by task; None is the key of the decision for all other requests.

    `window` [N] holds the certify decisions, in the columns of the log's reader; `scores_N` and `small_labels_N` are
    the frozen challenger's. `policy` was found on validate and deploys, for every decision in it, the searched
    threshold or the stricter certified one. `floor` is the least probability of being asked that was announced in the
    window, `delta` what the lineage's ledger gives to this attempt, `bet` that of `planned_bet`. Every decision of the
    policy spends an equal share of delta; a task without rows loses its own and follows the common one.

    With `labels`, disagreements that were drawn for labelling are lost only where their label says so; skipped ones,
    and answers of the large model that never came, count as lost. Its answers under other prompts than `none` are not
    in the log. Raises DataError for whatever voids the promise.
    """
    rows = _Rows.of(window, np.asarray(scores_N, dtype=np.float64), small_labels_N)
    _refuse(rows.table, policy, scope)
    share = delta / (1 + len(policy.task_decisions))
    certificates: dict[str | None, TrafficCertificate] = {}
    for task, decision in ((None, policy.decision), *policy.task_decisions.items()):
        chosen = rows.select(rows.of_task(task, policy.task_decisions))
        if len(chosen) or task is None:
            certificates[task] = _certify(chosen, decision, config, scope, floor, share, bet, labels)
    tasks = {task: certificate.route for task, certificate in certificates.items() if task is not None}
    deployed = policy.model_copy(update={"decision": certificates[None].route, "task_decisions": tasks})
    return deployed, certificates


@dataclass(frozen=True)
class DrawnItem:
    """An item that is put before a person, with the probability of that and its place in the frozen order, from 0.

    `small_label` is the answer of the challenger, which the large model disputes.
    """

    request_id: str
    item: int
    probability: float
    position: int
    small_label: str


def drawn_items(
    window: pa.Table,
    scores_N: ArrayLike,
    small_labels_N: Sequence[str],
    policy: Policy,
    *,
    floor: float,
    labels: LabelDraw,
) -> list[DrawnItem]:
    """The disagreements that a certificate of `policy` needs labels of, in their order; arguments as `certify_window`.

    They are put before people from the first on, so that every label decides as many units as it can.
    """
    rows = _Rows.of(window, np.asarray(scores_N, dtype=np.float64), small_labels_N)
    tasks = [None if pd.isna(task) else str(task) for task in rows.table["task"]]
    probability_N = labels.probabilities(rows.table["probability"].to_numpy(dtype=np.float64), floor)
    disputed_N = rows.known & rows.disagrees & policy.keep(rows.score, tasks)
    drawn = np.flatnonzero(disputed_N & labels.drawn(rows.items(), probability_N))
    place_N = labels.order([str(unit) for unit in rows.table["unit"]])
    found = rows.table.iloc[drawn[np.argsort(place_N[drawn], kind="stable")]]
    known = probability_N[found.index], rows.small_label[found.index]
    chosen = enumerate(zip(found["request_id"], found["item"], *known, strict=True))
    return [DrawnItem(request, int(item), float(rho), place, said) for place, (request, item, rho, said) in chosen]


def label_tests(
    window: pa.Table,
    scores_N: ArrayLike,
    small_labels_N: Sequence[str],
    policy: Policy,
    epsilon: float,
    *,
    floor: float,
    delta: float,
    labels: LabelDraw,
) -> list[LabelTest]:
    """The tests of every decision of `policy` that keeps something; arguments as `certify_window`.

    Their results may be asked for after each label: a test holds at all times.
    """
    rows = _Rows.of(window, np.asarray(scores_N, dtype=np.float64), small_labels_N)
    share = delta / (1 + len(policy.task_decisions))
    found = []
    for task, decision in ((None, policy.decision), *policy.task_decisions.items()):
        chosen = rows.select(rows.of_task(task, policy.task_decisions))
        if not len(chosen) or decision == ESCALATE_ALL:
            continue
        labelled = _labelled(chosen, chosen.traffic(floor), decision.cut, labels)
        units, drawn = labelled.units, labelled.drawn
        columns = (
            *(np.array(chosen.items(), dtype=object)[drawn], units.place, units.weight, units.score),
            *(chosen.small_label[drawn], chosen.table["large_label"].to_numpy(dtype=object)[drawn]),
        )
        items = tuple(
            DisputedItem(
                id=each,
                place=int(place),
                weight=float(weight),
                score=float(score),
                small_label=small,
                large_label=None if pd.isna(large) else large,
            )
            for each, place, weight, score, small, large in zip(*columns, strict=True)
        )
        found.append(
            LabelTest(
                task=task,
                decision=decision,
                epsilon=epsilon,
                delta=share,
                floor=units.floor,
                num_units=units.num_units,
                items=items,
            )
        )
    return found


def planned_bet(
    window: pa.Table,
    scores_N: ArrayLike,
    small_labels_N: Sequence[str],
    policy: Policy,
    epsilon: float,
    floor: float,
) -> float:
    """The constant bet for the certify decisions, from the window's validate decisions at the policy's thresholds.

    Without validate decisions the largest bet, which is the best where nothing disagrees.
    """
    return plan_bet(_planned_losses(window, scores_N, small_labels_N, policy, floor), floor * epsilon)


def needed_units(
    window: pa.Table,
    scores_N: ArrayLike,
    small_labels_N: Sequence[str],
    policy: Policy,
    epsilon: float,
    floor: float,
    delta: float,
) -> int | None:
    """Certify units with which a certificate of `policy` may be expected, from the window's validate decisions.

    As many certify about every second time. None where the policy loses too much on validate for any number.
    """
    return units_needed(_planned_losses(window, scores_N, small_labels_N, policy, floor), floor * epsilon, delta)


def _planned_losses(
    window: pa.Table, scores_N: ArrayLike, small_labels_N: Sequence[str], policy: Policy, floor: float
) -> NDArray[np.float64]:
    """X of each unit, [U], at the policy's thresholds; one of 0 where there are none."""
    rows = _Rows.of(window, np.asarray(scores_N, dtype=np.float64), small_labels_N)
    if not len(rows):
        return np.zeros(1)
    tasks = [None if pd.isna(task) else str(task) for task in rows.table["task"]]
    lost = rows.asked & rows.disagrees & policy.keep(rows.score, tasks)
    x_N = np.where(lost, floor / rows.table["probability"].to_numpy(dtype=np.float64), 0.0)
    return np.asarray(pd.Series(x_N).groupby(rows.table["unit"].to_numpy()).mean(), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _Rows:
    """The decisions of a window beside what the challenger says of them."""

    table: pd.DataFrame
    score: NDArray[np.float64]
    small_label: NDArray[np.object_]

    @classmethod
    def of(cls, window: pa.Table, score: NDArray[np.float64], small_labels: Sequence[str]) -> _Rows:
        label = np.array(list(small_labels), dtype=object)
        if not window.num_rows == len(score) == len(label):
            raise DataError(
                f"{window.num_rows} decisions, {len(score)} gate scores and {len(label)} answers", where="window"
            )
        heavy = [name for name in ("text", "image", "features", "large_probabilities") if name in window.column_names]
        return cls(window.drop_columns(heavy).to_pandas(), score, label)

    def __len__(self) -> int:
        return len(self.table)

    def select(self, rows: NDArray[np.bool_]) -> _Rows:
        return _Rows(self.table[rows].reset_index(drop=True), self.score[rows], self.small_label[rows])

    def of_task(self, task: str | None, own: Collection[str]) -> NDArray[np.bool_]:
        """The rows that the decision of `task` is for; those without a decision of their own follow the common one."""
        carried = self.table["task"]
        return np.asarray(carried == task if task is not None else ~carried.isin(list(own)), dtype=bool)

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Whether the large model's answer was asked for: always where the item was escalated."""
        return np.asarray((self.table["route"] != "small") | self.table["state"].notna(), dtype=bool)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether the large model's answer is there."""
        return self.asked & self.table["large_label"].notna().to_numpy()

    @property
    def disagrees(self) -> NDArray[np.bool_]:
        """Whether the challenger answers otherwise than the large model, or that never answered, or not yet."""
        return np.asarray(~self.known | (self.table["large_label"].to_numpy(dtype=object) != self.small_label))

    def traffic(self, floor: float) -> Traffic:
        return Traffic(
            score=self.score,
            asked=self.asked,
            probability=self.table["probability"].to_numpy(dtype=np.float64),
            disagrees=self.disagrees,
            floor=floor,
            unit=self.table["unit"].to_numpy(dtype=object),
        )

    def items(self) -> list[str]:
        return [f"{request}/{item}" for request, item in zip(self.table["request_id"], self.table["item"], strict=True)]


def _certify(
    rows: _Rows,
    decision: Decision,
    config: CertificateConfig,
    scope: WindowScope,
    floor: float,
    delta: float,
    bet: float,
    labels: LabelDraw | None,
) -> TrafficCertificate:
    if not len(rows):
        raise DataError(
            f"decisions {scope.after + 1} to {scope.upto} hold none of a certify unit that follows the policy's common"
            " decision",
            where=f"application {scope.application}",
            mend="Wait for more traffic",
        )
    traffic = rows.traffic(floor)
    labelled = None if labels is None else _labelled(rows, traffic, decision.cut, labels)
    answered = rows.table["answered_at"]
    window = CertifiedWindow(
        application=scope.application,
        after=scope.after,
        upto=scope.upto,
        begins_at=_utc(answered.min()),
        ends_at=_utc(answered.max()),
        expires_at=scope.now + timedelta(days=scope.expires_days),
        num_decisions=len(rows),
        num_asked=int(traffic.asked.sum()),
        num_labels=0 if labelled is None else int((labelled.answered & rows.known).sum()),
    )
    if decision == ESCALATE_ALL:
        labelled = None  # nothing is kept, so that nothing is disputed
    return certify_traffic(traffic, decision, config, window, delta=delta, bet=bet, labelled=labelled)


def _labelled(rows: _Rows, traffic: Traffic, threshold: float, labels: LabelDraw) -> LabelledTraffic:
    """What a person said of the disagreements above `threshold`.

    Raises DataError for an item in the inbox that this attempt cannot have drawn.
    """
    table = rows.table
    rho_N = labels.probabilities(traffic.probability, traffic.floor)
    disputed = traffic.asked & traffic.disagrees & (traffic.score > threshold)
    drawn = disputed & rows.known & labels.drawn(rows.items(), rho_N)
    state = table["inbox_state"].to_numpy(dtype=object)
    shown = pd.notna(state)
    if (strange := shown & ~drawn).any():
        raise DataError(
            f"{strange.sum()} items of the inbox were not drawn by attempt {labels.attempt}, the first is "
            f"{rows.items()[int(np.argmax(strange))]}",
            where="inbox",
            mend="Labels count for the challenger that they were drawn for",
        )
    given = table["inbox_probability"].to_numpy(dtype=np.float64)
    if (shown & ~(np.abs(given - rho_N) < 1e-9)).any():
        raise DataError(
            f"labels were drawn with another probability than attempt {labels.attempt} gave them, or with none",
            where="inbox",
            mend="Volunteered labels cannot certify",
        )
    never = disputed & ~rows.known  # no label could tell whether the large model would have been right
    answered, lost = np.zeros((2, len(rows)), dtype=bool)
    label, large = (table[name].to_numpy(dtype=object) for name in ("inbox_label", "large_label"))
    for place in np.flatnonzero(drawn | never):
        said = None if never[place] else large[place]
        answered[place], lost[place] = outcome(state[place], label[place], rows.small_label[place], said)
    return LabelledTraffic(
        traffic=traffic,
        threshold=threshold,
        drawn=drawn | never,
        label_probability=np.where(never, 1.0, rho_N),
        answered=answered,
        lost=lost,
        order=labels.order([str(unit) for unit in table["unit"]]),
        floor=labels.probability * traffic.floor,
    )


def _refuse(table: pd.DataFrame, policy: Policy, scope: WindowScope) -> None:
    """Raise DataError for the first thing that voids the promise."""
    where = f"application {scope.application}, decisions {scope.after + 1} to {scope.upto}"
    for bad, what, mend in _objections(table, policy, scope):
        if bad:
            raise DataError(what, where=where, mend=mend)


def _objections(table: pd.DataFrame, policy: Policy, scope: WindowScope) -> list[tuple[bool, str, str]]:
    """Whether each objection holds, what it says, and what to do."""
    fresh = "Wait for traffic after it"
    probability, share = (table[name].to_numpy(dtype=np.float64) for name in ("probability", "audit_share"))
    improbable, silent = ~(probability > 0), ~(share > 0)
    nameless = table["model_version"].isna() | (table["model_version"] == "") | table["unit"].isna()
    outside = (table["number"] <= scope.after) | (table["number"] > scope.upto)
    trained = table["unit"].isin(list(scope.trained_units))
    other = table["purpose"] != "certify" if "purpose" in table else pd.Series(False, index=table.index)
    identities = sorted({str(each) for each in table["large_identity"].unique()} - {scope.large_identity})
    missing = scope.num_missing / max(1, scope.num_missing + scope.num_decisions)
    latest = table["answered_at"].max()
    return [
        (
            scope.after < scope.promoted_after,
            f"the window begins before the champion was promoted, after decision {scope.promoted_after}",
            fresh,
        ),
        (
            scope.alarm is not None and scope.after < scope.alarm,
            f"the window holds decisions that raised the alarm, up to {scope.alarm}",
            fresh,
        ),
        (
            (policy.prompt, scope.prompt) != ("none", "none"),
            "the log has no answers under prompt `none` beside those under another",
            "Update a champion whose policy, like the challenger's, has prompt none",
        ),
        (
            missing > MAX_MISSING,
            f"{scope.num_missing} decisions are missing from the log, {100 * missing:.2g}% of the window",
            f"Begin a window after the gap; {100 * MAX_MISSING:g}% may be missing",
        ),
        (bool(outside.any()), f"{outside.sum()} decisions lie outside the window", "Read the window again"),
        (bool(other.any()), f"{other.sum()} decisions are of no certify unit", "Give certify decisions alone"),
        (
            bool(nameless.any()),
            f"{nameless.sum()} decisions have no version or unit",
            "Begin after older versions of the service",
        ),
        (
            bool(silent.any()),
            f"nothing was audited when {silent.sum()} decisions were made",
            "Set serve.audit.share, and begin the window after that",
        ),
        (
            bool(improbable.any()),
            f"{improbable.sum()} decisions have no probability of having been audited",
            "Begin the window after older versions of the service",
        ),
        (
            bool(trained.any()),
            f"{trained.sum()} decisions are of units that the challenger was trained or tuned on",
            "Certify units are never trained on; look for a changed salt or split",
        ),
        (
            bool(identities),
            f"answers are of another large model, {', '.join(identities[:3])}, than {scope.large_identity}",
            "Begin the window after the change",
        ),
        (
            len(table) > 0 and pd.notna(latest) and _utc(latest) > scope.now + _AHEAD,
            f"decisions are dated up to {latest}, which has not come yet",
            "Set the clocks right; a certificate expires by them",
        ),
    ]


def _utc(when: Any) -> datetime:
    """A time of the log, which is in UTC whether it says so or not."""
    stamp = pd.Timestamp(when)
    return (stamp.tz_localize(UTC) if stamp.tzinfo is None else stamp.tz_convert(UTC)).to_pydatetime()
