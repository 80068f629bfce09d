"""The promotion gates: what a challenger must prove before it may become the champion, cheap gates first.

Each gate is a pure function of existing figures, and returns a verdict with them. If the rows cannot decide a gate, its
verdict is undecided, and a person decides.

Feasibility comes first: among the cascades that keep the promise, the cheapest wins. A champion that breaks its promise
must not answer any longer, so its calls are no measure for its successor (`against`).

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kcm.cascade.outcome_rows import ColumnTable
from kcm.certification.certificate import Certificate
from kcm.config import Config
from kcm.metrics.intervals import Interval, paired_difference
from kcm.report.formats import plural

Verdict = Literal["pass", "fail", "undecided"]
LEVEL = 0.95  # level of the two-sided intervals
CHAMPION = "champion"  # the gate on the champion's own promise


class GateConfig(Config):
    """The limits of the promotion gates; the certificate's limits are in section `certificate`."""

    max_old_task_loss: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="Accuracy that all old tasks together may lose against the champion, by its interval; one task "
        "fails only when it is shown to lose more.",
    )


class PromotionGate(Config):
    """The verdict of one gate, its figures, and the reason in a sentence."""

    name: str
    verdict: Verdict
    reason: str
    figures: dict[str, Any] = Field(default_factory=dict)


def overall(gates: Iterable[PromotionGate]) -> Verdict:
    """The verdict of all gates together: the worst of them."""
    verdicts = {gate.verdict for gate in gates}
    return "fail" if "fail" in verdicts else "undecided" if "undecided" in verdicts else "pass"


def enough_rows(large_answers: int, min_answers: int) -> PromotionGate:
    """Whether the window holds enough answers of the large model to learn from."""
    passes = large_answers >= min_answers
    return PromotionGate(
        name="rows",
        verdict="pass" if passes else "fail",
        reason="the window holds enough to learn from"
        if passes
        else f"the window holds {large_answers} answers of the large model, {min_answers} are needed",
        figures={"large_answers": large_answers, "min_large_answers": min_answers},
    )


def answers_probe(fault: str | None, num_inputs: int) -> PromotionGate:
    """Whether the bundle loads and answers a probe; `fault` is what went wrong."""
    return PromotionGate(
        name="probe",
        verdict="fail" if fault else "pass",
        reason=fault or f"the bundle loads and answers {plural(num_inputs, 'input')}",
        figures={"inputs": num_inputs},
    )


def replay_panel(
    earlier_N: NDArray[np.int64], first_N: NDArray[np.int64], second_N: NDArray[np.int64]
) -> PromotionGate:
    """Whether the large model repeats its earlier answers to fixed prompts as well as it repeats itself.

    Labels of its earlier answers, and of two answers requested now. A model that answers at random repeats itself no
    better than it repeats its past; a different model behind the same name repeats itself better.
    """
    if len(earlier_N) == 0:
        return PromotionGate(name="panel", verdict="undecided", reason="there is no earlier answer to compare with")
    with_past, with_itself = earlier_N == first_N, second_N == first_N
    difference = paired_difference(with_past, with_itself, level=LEVEL)
    assert difference is not None
    is_fewer = difference.high < 0
    return PromotionGate(
        name="panel",
        verdict="fail" if is_fewer else "pass",
        reason="another large model gave the earlier answers: certificates on them are void"
        if is_fewer
        else "the large model agrees with its earlier answers as well as with itself",
        figures={
            "inputs": len(earlier_N),
            "agreement_with_earlier": float(with_past.mean()),
            "agreement_with_itself": float(with_itself.mean()),
            "difference_interval": [difference.low, difference.high],
        },
    )


@dataclass(frozen=True, eq=False)
class Paired(ColumnTable):
    """Correctness of both cascades on the same test rows of one task, [N]; `group` names the sampling unit."""

    champion: NDArray[np.bool_]
    challenger: NDArray[np.bool_]
    group: NDArray[np.object_] | None = None


def old_tasks(tasks: Mapping[str, Paired], max_loss: float) -> PromotionGate:
    """Whether the upper end of the paired loss against the champion exceeds `max_loss`, over all old tasks together.

    One task fails the gate if the lower end of its own loss exceeds `max_loss`, at a level that all tasks share. A task
    with too few rows only shows this in its figures.
    """
    measured_tasks = {task: rows for task, rows in tasks.items() if len(rows.champion)}
    figures: dict[str, Any] = {"max_loss": max_loss, "tasks": {task: {"rows": 0} for task in tasks}}
    if not measured_tasks:
        reason = "there is no row to compare on" if tasks else "there is no old task"
        return PromotionGate(name="old_tasks", verdict="undecided" if tasks else "pass", reason=reason, figures=figures)
    losses = {task: _loss(rows, 1 - (1 - LEVEL) / len(measured_tasks)) for task, rows in measured_tasks.items()}
    pooled = _loss(Paired.joined(measured_tasks.values()), LEVEL)
    figures["tasks"] |= {
        task: _figures(loss, max_loss) | {"rows": len(measured_tasks[task].champion)} for task, loss in losses.items()
    }
    figures |= {"pooled": _figures(pooled, max_loss)}
    verdict, limit = _within(pooled, max_loss), f"more than {100 * max_loss:g} points"
    reason = {
        "pass": f"over all old tasks together no {limit} are lost",
        "fail": f"over all old tasks together {limit} are lost",
        "undecided": f"{', '.join(measured_tasks)} may lose {limit}: too few rows to tell",
    }[verdict]
    if worse_tasks := [task for task, loss in losses.items() if _within(loss, max_loss) == "fail"]:
        verdict, reason = "fail", f"{', '.join(worse_tasks)} loses {limit}"
    if verdict == "fail":
        figures["binding"] = True
    return PromotionGate(name="old_tasks", verdict=verdict, reason=reason, figures=figures)


def _loss(rows: Paired, confidence: float) -> Interval:
    loss = paired_difference(rows.champion, rows.challenger, rows.group, confidence)
    assert loss is not None  # a task without rows
    return loss


def _within(loss: Interval, max_loss: float) -> Verdict:
    return "pass" if loss.high <= max_loss else "fail" if loss.low > max_loss else "undecided"


def _figures(loss: Interval, max_loss: float) -> dict[str, Any]:
    return {"loss": loss.estimate, "interval": [loss.low, loss.high], "verdict": _within(loss, max_loss)}


def promise_kept(
    loss: tuple[float, float], epsilon: float, signs: Sequence[str] = (), *, certified: bool = True
) -> PromotionGate:
    """Whether the champion may continue to answer; the challenger passes either way.

    `loss`: ends of the interval of its loss on the window, relative to the large model. `signs`: other evidence that
    refutes its certificate, an alarm, or more unknown items than it was certified with. A champion that is not
    `certified` has no promise to keep: whatever keeps one is better.
    """
    reasons = list(signs)
    if loss[0] > epsilon:
        reasons.append(f"at least {100 * loss[0]:.1f} points are lost on the window, {100 * epsilon:g} are allowed")
    reason = "nothing on the window refutes the champion's promise" if certified else "the champion has no certificate"
    if reasons:
        reason = f"the champion breaks its promise: {'; '.join(reasons)}"
    return PromotionGate(
        name=CHAMPION,
        verdict="pass",
        reason=reason,
        figures={"feasible": certified and not reasons, "loss_interval": list(loss), "epsilon": epsilon},
    )


def against(champion: PromotionGate, gates: Iterable[PromotionGate], *, keeps: bool = True) -> list[PromotionGate]:
    """The gates that compare with the champion, in effect: if the champion breaks its promise, they only inform.

    `champion` is the result of `promise_kept`. The gates also only inform if the champion `keeps` nothing, as after a
    repair: it answers like the large model, and the loss against that is certified. Old tasks with a proven loss
    fail in any case: this verdict is `binding`, because it is about the challenger. The figures hold the measured
    verdicts.
    """
    if champion.figures["feasible"] and keeps:
        return list(gates)
    why = "keeps nothing" if champion.figures["feasible"] else "may not answer"
    return [
        gate.model_copy(
            update={
                "verdict": "pass",
                "reason": f"{gate.reason}; compared with a champion that {why}, which decides nothing",
                "figures": gate.figures | {"measured_verdict": gate.verdict},
            }
        )
        if gate.verdict != "pass" and not gate.figures.get("binding")
        else gate
        for gate in gates
    ]


def certified(certificate: Certificate, *, repairs: bool = False) -> PromotionGate:
    """Whether the window certifies that something is kept.

    Escalating everything is always certified and no reason to promote, unless the challenger `repairs`: after an alarm
    the service escalates everything anyway, and the challenger's large model knows labels that the champion's does not.
    If the window was too small to certify anything, a person may decide.
    """
    names = ("method", "epsilon", "delta", "bound", "decision", "num_units", "fewest_units", "num_rows")
    figures = {name: value for name, value in certificate.model_dump(mode="json").items() if name in names}
    verdict: Verdict = "pass"
    if not certificate.valid:
        verdict = "fail"
    elif certificate.decision == "escalate_all" and not repairs:
        verdict = "undecided" if certificate.num_units < certificate.fewest_units else "fail"
    return PromotionGate(name="certificate", verdict=verdict, reason=certificate.reason, figures=figures)


def old_calls(
    champion_kept_N: NDArray[np.bool_], challenger_kept_N: NDArray[np.bool_], more_units: int
) -> PromotionGate:
    """Whether the challenger saves at least as many calls on the old tasks as the champion; otherwise a person decides.

    Which test rows of the old tasks each keeps, [N]. `more_units` is what its certificate lacks to keep anything.
    """
    if not len(champion_kept_N):
        return PromotionGate(name="old_calls", verdict="pass", reason="there is no row of an old task")
    before, after = float(champion_kept_N.mean()), float(challenger_kept_N.mean())
    reason = f"on the old tasks it saves {after:.1%} of the calls, the champion {before:.1%}"
    if after < before and more_units > 0:
        reason += f"; the champion goes on until {plural(more_units, 'more certify unit')} can certify its successor"
    return PromotionGate(
        name="old_calls",
        verdict="pass" if after >= before else "undecided",
        reason=reason,
        figures={"rows": len(champion_kept_N), "champion": before, "challenger": after, "more_units": more_units},
    )


def call_rate(
    champion_N: NDArray[np.bool_],
    challenger_N: NDArray[np.bool_],
    unit_N: NDArray[np.object_] | None = None,
) -> PromotionGate:
    """Whether the challenger calls the large model no more often than the champion.

    Calls of both on the same items of the window, [N].
    """
    rise = paired_difference(challenger_N, champion_N, unit_N, LEVEL)
    if rise is None:
        return PromotionGate(name="call_rate", verdict="undecided", reason="the window holds no item to measure it on")
    figures: dict[str, Any] = {
        "rows": len(champion_N),
        "champion": float(champion_N.mean()),
        "challenger": float(challenger_N.mean()),
        "rise_interval": [rise.low, rise.high],
    }
    verdict: Verdict = "pass" if rise.estimate <= 0 else "undecided"
    reason = "it calls no more often" if rise.estimate <= 0 else "it may call more often: too few rows to tell"
    if rise.low > 0:
        verdict, reason = "fail", "it calls more often"
    return PromotionGate(name="call_rate", verdict=verdict, reason=reason, figures=figures)
