"""The report in sentences: the headline, what a reader must be told, and what each figure shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kcm.report.text.formats import (
    MISSING,
    exact_points,
    known,
    number,
    percent,
    plural,
    points,
    points_interval,
    rounds_to_zero,
    unsigned_points,
    whole_percent,
)
from kcm.report.text.reading import (
    NAMES,
    Numbers,
    Who,
    certificate_of,
    certificates,
    collaborators,
    deployed,
    escalates_all,
    filled_bins,
    first_and_last,
    is_certified,
    is_scored,
)


def headline(result: Numbers) -> str:
    """What the deployed collaborator does, what it costs in accuracy, and what is certified."""
    (who, found), certificate = deployed(result), certificate_of(result)
    if escalates_all(certificate):
        return (
            f"{NAMES[who]} sends every input to the large model: no threshold could be certified to lose at most"
            f" {epsilon_words(certificate)} with a probability of at least {confidence_words(certificate)}"
            f"{_because(certificate)}."
        )
    return f"{NAMES[who]} {_does(found['overall'])}. {_promise(certificate)}"


def control(result: Numbers) -> str:
    """What the other collaborator does in its place."""
    own, _ = deployed(result)
    other: Who = "mcm" if own == "kcm" else "kcm"
    found = collaborators(result).get(other)
    if found is None:
        return f"This run has no {NAMES[other]}, so there is no control to compare {NAMES[own]} with."
    networks = "MLPs in place of KANs" if other == "mcm" else "KANs in place of MLPs"
    return f"{NAMES[other]}, the control with {networks}, {_does(found['overall'])}."


def notices(result: Numbers) -> list[str]:
    """What would mislead if it were left unsaid; empty for an ordinary run."""
    overall, certificate = deployed(result)[1]["overall"], certificate_of(result)
    found = [
        _small_is_better(overall),
        _costs_more(overall),
        _test_exceeds(overall, certificate),
        _bad_rows(result.get("bad_rows")),
    ]
    return [notice for notice in found if notice]


def epsilon_words(certificate: Numbers) -> str:
    """Epsilon as `2 points`."""
    epsilon = certificate.get("epsilon")
    return exact_points(epsilon) if known(epsilon) else "an unstated loss"


def confidence_words(certificate: Numbers) -> str:
    """1 - delta as `90%`, rounded down; delta of all decisions together, which must hold at once."""
    decisions = certificates(certificate).values()
    spent = [delta for each in decisions if known(delta := each.get("delta"))]
    if len(spent) < len(decisions):
        return "an unstated share"
    permille = math.floor(round(1000 * (1 - sum(spent)), 6))
    return f"{permille / 10:g}%"


def frontier(result: Numbers, names: Mapping[Who, str] = NAMES) -> str:
    """Where the deployed cascades stand."""
    parts = [
        f"{names[who]} deployed: {percent(c['overall'].get('cascade_accuracy'))} correct at a call rate of"
        f" {percent(c['overall'].get('call_rate'))}."
        for who, c in collaborators(result).items()
    ]
    large = percent(deployed(result)[1]["overall"].get("large_accuracy"))
    own = any((c.get("policy") or {}).get("task_decisions") for c in collaborators(result).values())
    aside = " Thresholds per task may leave the curve, which has one for all." if own else ""
    return " ".join([*parts, f"Large alone: {large}. Small alone is the left end of each curve.{aside}"])


def differences(result: Numbers) -> str:
    """The paired difference over all tasks."""
    parts = [
        f"{NAMES[who]} over all tasks: {points(c['overall'].get('difference'))} points"
        f" ({points_interval(c['overall'].get('difference_interval'))})."
        for who, c in collaborators(result).items()
    ]
    return " ".join([*parts, "Left of zero the cascade is less accurate than the large model alone."])


def certificate_path(certificate: Numbers) -> str:
    """What was tested, and in which order."""
    tested = (
        f"The p-value of “the loss exceeds {epsilon_words(certificate)}”, wins of the small model not credited, from"
        " the strictest threshold (right) towards keeping more (left)."
    )
    if certificate.get("method") == "net":
        return f"{tested} The certificate itself was tested by net, which credits wins: it may reach further."
    return f"{tested} Certified is what comes before the first p-value above δ."


def regret(certificate: Numbers) -> str:
    """What the certify rows themselves lost."""
    lost = "Accuracy lost on the certify rows, route by route, wins of the small model not credited."
    if certificate.get("method") == "net":
        return lost
    return f"{lost} A certified route stays below {epsilon_words(certificate)} by what the luck of the draw may hide."


def untested(certificate: Numbers) -> str:
    """Why there is no path."""
    return f"No threshold was tested{_because(certificate)}."


def forgetting(result: Numbers, names: Sequence[str]) -> str:
    """The task that lost the most, per collaborator."""
    parts = []
    for who, c in collaborators(result).items():
        losses = [(pair[0] - pair[1], j) for j, pair in enumerate(first_and_last(c)) if pair]
        if losses:
            loss, j = max(losses)
            lost = "no task lost accuracy" if loss <= 0 else f"{names[j]} lost the most, {unsigned_points(loss)}"
            parts.append(f"{NAMES[who]}: {lost}.")
    return " ".join(parts)


def reliability(bins: Mapping[str, Sequence[Numbers]], names: Mapping[Who, str] = NAMES) -> str:
    """Where confidence and accuracy part the most, among bins that hold enough rows to tell."""
    parts = []
    for who, name in names.items():
        filled = filled_bins(bins.get(who, ()))
        num_rows = sum(b["count"] for b in filled)
        telling = [b for b in filled if b["count"] >= 0.02 * num_rows]
        if telling:
            worst = max(telling, key=lambda b: abs(b["confidence"] - b["accuracy"]))
            sure, right = percent(worst["confidence"], 0), percent(worst["accuracy"], 0)
            parts.append(f"{name} is furthest off where it is {sure} sure: it is right {right} of the time.")
    return " ".join([*parts, "Larger marks hold more rows."])


def trials(tried: Sequence[Numbers]) -> str:
    """How many trials there were, how many have no score, and the best of them."""
    scored = [trial for trial in tried if is_scored(trial)]
    best = percent(max(trial["calls_saved"] for trial in scored))
    gone = len(tried) - len(scored)
    rest = f" {plural(gone, 'trial')} without a score {'is' if gone == 1 else 'are'} not drawn." if gone else ""
    found = f"{plural(len(tried), 'trial')} on validate. At the loss that tuning allows,"
    return f"{found} the best saves {best} of the calls.{rest}"


def decision(values: Numbers) -> str:
    """A decision as `keep above 2.104`, `keep all` or `escalate all`."""
    if values.get("decision") == "threshold":
        return f"keep above {number(values.get('threshold'))}"
    return str(values.get("decision") or MISSING).replace("_", " ")


def policy(values: Numbers) -> str:
    """What a policy, as `policy.json` has it, does."""
    gate, price, common = values["gate"], values["deferral_weight"], values["decision"]
    priced = f", a call priced at {number(price)}" if gate == "deferral" else ""
    own = [f"{task}: {decision(each)}." for task, each in values["task_decisions"].items()]
    return " ".join(
        [
            f"The gate score is {_GATES.get(gate, gate)}, at a temperature of {number(values['temperature'])}{priced}.",
            _DECISIONS[common["decision"]].format(number(common.get("threshold"))),
            *(["Requests that carry one of these tasks follow its own decision:", *own] if own else []),
            _PROMPTS[values["prompt"]],
            _FAILURES[values["on_large_failure"]],
        ]
    )


_GATES = {
    "confidence": "the log-odds of the judge's likeliest label",
    "margin": "the margin between the judge's two likeliest labels",
    "entropy": "the negative entropy of the judge's probabilities",
    "deferral": "an estimate of what a call to the large model would gain",
}
_DECISIONS = {
    "threshold": "The small model answers what scores above {}, the large model the rest.",
    "keep_all": "The small model answers every input.",
    "escalate_all": "The large model answers every input.",
}
_PROMPTS = {
    "none": "The large model is shown the task prompt alone.",
    "soft": "The large model is told what the small one suggests, and how probable it holds that.",
    "hard": "The large model chooses among the labels that the small one cannot be left alone with.",
}
_FAILURES = {
    "answer_small": "While the large model fails, the small one answers in its place and says so.",
    "error": "While the large model fails, requests that need it are refused.",
}


def _does(overall: Numbers) -> str:
    difference, bounds = overall.get("difference"), points_interval(overall.get("difference_interval"))
    answers = f"answers {_kept(overall.get('call_rate'))} itself"
    if not known(difference):
        return f"{answers}; its accuracy was not compared with the large model's"
    interval = f"(95% interval of the difference: {bounds})"
    if rounds_to_zero(100 * difference, 1):
        return f"{answers} and is as accurate as the large model alone {interval}"
    verb, against = ("gains", "over") if difference > 0 else ("loses", "against")
    return f"{answers} and {verb} {unsigned_points(difference)} {against} the large model alone {interval}"


def _kept(call_rate: float | None) -> str:
    if not known(call_rate):
        return "an unmeasured share of the inputs"
    if call_rate in (0, 1):
        return "no input" if call_rate else "every input"
    return f"{whole_percent(1 - call_rate)} of the inputs"


def _promise(certificate: Numbers) -> str:
    if not is_certified(certificate):
        return f"The loss is not certified{_because(certificate)}."
    confidence, epsilon = confidence_words(certificate), epsilon_words(certificate)
    within = " in every task with a threshold of its own, and over all other inputs" if certificate.get("tasks") else ""
    return f"With a probability of at least {confidence} the loss is at most {epsilon}{within}."


def _because(certificate: Numbers) -> str:
    reason = str(certificate.get("reason") or "").strip().rstrip(".")
    return f": {reason}" if reason else ""


def _small_is_better(overall: Numbers) -> str:
    small, large = overall.get("small_accuracy"), overall.get("large_accuracy")
    if not (known(small) and known(large)) or small < large:
        return ""
    compared = "as accurate as" if small == large else "more accurate than"
    return (
        f"On the test rows the small model alone ({percent(small)}) is {compared} the large model ({percent(large)})."
        " Never escalating would be at least as accurate, and cheaper."
    )


def _costs_more(overall: Numbers) -> str:
    saved = overall.get("cost_saved")
    if not known(saved) or saved >= 0:
        return ""
    return (
        f"The cascade costs {percent(-saved)} more than the large model alone: the small side's own cost outweighs the"
        " calls that it saves."
    )


def _test_exceeds(overall: Numbers, certificate: Numbers) -> str:
    difference, epsilon = overall.get("difference"), certificate.get("epsilon")
    if not (is_certified(certificate) and known(difference) and known(epsilon)) or -difference <= epsilon:
        return ""
    return (
        f"On the test rows the cascade loses {unsigned_points(difference)}, more than the certified"
        f" {exact_points(epsilon)}. The test rows may be unlike the certify rows, or chance was against the"
        " certificate: look before you deploy."
    )


def _bad_rows(count: int | None) -> str:
    if not count:
        return ""
    return f"{plural(count, 'row')} could not be used and {'was' if count == 1 else 'were'} left out."
