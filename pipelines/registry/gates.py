"""The promotion gates: what a challenger must show before it may become the champion, the cheap ones first.

Each is a pure function of figures that are there already, and gives a verdict with them. A gate that the rows cannot
decide says so, and leaves the decision to a person.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kcm.certify.certificate import Certificate
from kcm.config import Config
from kcm.metrics.intervals import paired_difference
from kcm.report.formats import plural

Verdict = Literal["pass", "fail", "undecided"]
LEVEL = 0.95  # of the two-sided intervals


class GateConfig(Config):
    """The limits of the promotion gates; the certificate's own stand in section `certificate`."""

    max_old_task_loss: float = Field(
        0.01, gt=0, lt=1, description="Accuracy that no old task may lose against the champion, by its interval."
    )
    max_cost: float = Field(1.05, gt=0, description="Cost of an answer, times the champion's, on the window.")
    max_latency: float = Field(1.5, gt=0, description="Time of the small side for an item, times the champion's.")
    panel_size: int = Field(
        32, ge=0, description="Inputs that the large model is asked again, to notice another model behind its name."
    )


class PromotionGate(Config):
    """The verdict of one gate, the figures that it rests on, and the reason in a sentence."""

    name: str
    verdict: Verdict
    reason: str
    figures: dict[str, Any] = Field(default_factory=dict)


def overall(gates: Iterable[PromotionGate]) -> Verdict:
    """The verdict of all gates together: the worst of them."""
    found = {gate.verdict for gate in gates}
    return "fail" if "fail" in found else "undecided" if "undecided" in found else "pass"


def enough_rows(large_answers: int, labels: int, *, min_large_answers: int, min_labels: int) -> PromotionGate:
    """Whether the window holds enough to learn from."""
    short = [
        f"{found} {what}, {needed} are needed"
        for what, found, needed in (
            ("answers of the large model", large_answers, min_large_answers),
            ("labels", labels, min_labels),
        )
        if found < needed
    ]
    return PromotionGate(
        name="rows",
        verdict="fail" if short else "pass",
        reason="; ".join(short) or "the window holds enough to learn from",
        figures={
            "large_answers": large_answers,
            "labels": labels,
            "min_large_answers": min_large_answers,
            "min_labels": min_labels,
        },
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
    """Whether the large model still gives its earlier answers to fixed prompts as well as it repeats itself.

    Labels of its earlier answers, and of two answers asked for now. A model that answers at random repeats itself no
    better than it repeats its past; another model behind the same name does.
    """
    if len(earlier_N) == 0:
        return PromotionGate(name="panel", verdict="undecided", reason="there is no earlier answer to compare with")
    with_past, with_itself = earlier_N == first_N, second_N == first_N
    difference = paired_difference(with_past, with_itself, level=LEVEL)
    assert difference is not None
    changed = difference.high < 0
    return PromotionGate(
        name="panel",
        verdict="fail" if changed else "pass",
        reason="the large model is not the one that gave the earlier answers: certificates on them are void"
        if changed
        else "the large model agrees with its earlier answers as well as with itself",
        figures={
            "inputs": len(earlier_N),
            "agreement_with_earlier": float(with_past.mean()),
            "agreement_with_itself": float(with_itself.mean()),
            "difference_interval": [difference.low, difference.high],
        },
    )


@dataclass(frozen=True, eq=False)
class Paired:
    """Correctness of both cascades on the same test rows of one task, [N]; `group` names what was drawn together."""

    champion: NDArray[np.bool_]
    challenger: NDArray[np.bool_]
    group: NDArray[np.object_] | None = None


def old_tasks(tasks: Mapping[str, Paired], max_loss: float) -> PromotionGate:
    """Whether on no old task the upper end of the paired loss against the champion exceeds `max_loss`.

    A task whose interval holds `max_loss` is undecided: it may lose that much, and there are too few rows to tell. All
    tasks have to pass, so no level is shared among them.
    """
    figures: dict[str, dict[str, Any]] = {}
    verdicts: dict[str, Verdict] = {}
    for task, rows in tasks.items():
        loss = paired_difference(rows.champion, rows.challenger, rows.group, LEVEL)
        if loss is None:
            verdicts[task], figures[task] = "undecided", {"rows": 0}
            continue
        verdicts[task] = "pass" if loss.high <= max_loss else "fail" if loss.low > max_loss else "undecided"
        figures[task] = {
            "rows": len(rows.champion),
            "loss": loss.estimate,
            "interval": [loss.low, loss.high],
            "verdict": verdicts[task],
        }
    verdict: Verdict = "pass"
    reason = f"no old task loses more than {100 * max_loss:g} points"
    if lost := [task for task, each in verdicts.items() if each == "fail"]:
        verdict, reason = "fail", f"{', '.join(lost)} loses more than {100 * max_loss:g} points"
    elif unsure := [task for task, each in verdicts.items() if each == "undecided"]:
        verdict = "undecided"
        reason = f"{', '.join(unsure)} may lose more than {100 * max_loss:g} points: too few rows to tell"
    return PromotionGate(
        name="old_tasks", verdict=verdict, reason=reason, figures={"max_loss": max_loss, "tasks": figures}
    )


def certified(certificate: Certificate) -> PromotionGate:
    """Whether the window certifies that something is kept.

    Escalating all is always certified, and no reason to promote; where the window was too small to certify anything,
    a person may decide.
    """
    shown = ("method", "epsilon", "delta", "bound", "decision", "num_units", "fewest_units", "num_rows")
    figures = {name: value for name, value in certificate.model_dump(mode="json").items() if name in shown}
    verdict: Verdict = "pass"
    if not certificate.valid:
        verdict = "fail"
    elif certificate.decision == "escalate_all":
        verdict = "undecided" if certificate.num_units < certificate.fewest_units else "fail"
    return PromotionGate(name="certificate", verdict=verdict, reason=certificate.reason, figures=figures)


def call_rate(
    champion_N: NDArray[np.bool_],
    challenger_N: NDArray[np.bool_],
    unit_N: NDArray[np.object_] | None = None,
    *,
    max_call_rate: float | None = None,
    bound: float | None = None,
) -> PromotionGate:
    """Whether the challenger calls the large model no more often than the champion did, and no more than promised.

    Calls of both on the same items of the window, [N]. `bound` is the upper confidence bound on the challenger's call
    rate where one was promised.
    """
    rise = paired_difference(challenger_N, champion_N, unit_N, LEVEL)
    if rise is None:
        return PromotionGate(name="call_rate", verdict="undecided", reason="the window holds no item to measure it on")
    figures: dict[str, Any] = {
        "rows": len(champion_N),
        "champion": float(champion_N.mean()),
        "challenger": float(challenger_N.mean()),
        "rise_interval": [rise.low, rise.high],
        "max_call_rate": max_call_rate,
        "bound": bound,
    }
    verdict: Verdict = "pass" if rise.estimate <= 0 else "undecided"
    reason = "it calls no more often" if rise.estimate <= 0 else "it may call more often: too few rows to tell"
    if rise.low > 0:
        verdict, reason = "fail", "it calls more often"
    if max_call_rate is not None and (bound is None or bound > max_call_rate):
        verdict, reason = "fail", f"a call rate of {max_call_rate:g} cannot be promised"
    return PromotionGate(name="call_rate", verdict=verdict, reason=reason, figures=figures)


def cost(champion: float, challenger: float, max_ratio: float) -> PromotionGate:
    """Whether an answer costs no more than `max_ratio` times the champion's; both in seconds, the large side's too."""
    return _ratio("cost", "an answer costs", champion, challenger, max_ratio)


def latency(champion: float, challenger: float, max_ratio: float) -> PromotionGate:
    """Whether the small side takes no longer than `max_ratio` times the champion's; both in seconds an item."""
    return _ratio("latency", "the small side takes", champion, challenger, max_ratio)


def _ratio(name: str, what: str, champion: float, challenger: float, max_ratio: float) -> PromotionGate:
    ratio = challenger / champion if champion > 0 else None
    figures = {"champion_s": champion, "challenger_s": challenger, "ratio": ratio, "max_ratio": max_ratio}
    if ratio is None:
        return PromotionGate(name=name, verdict="undecided", reason="the champion's is not known", figures=figures)
    within = ratio <= max_ratio
    return PromotionGate(
        name=name,
        verdict="pass" if within else "fail",
        reason=f"{what} {ratio:.2f} times the champion's, at most {max_ratio:g} are allowed",
        figures=figures,
    )
