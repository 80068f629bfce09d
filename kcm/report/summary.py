"""What a run comes to, in sentences that report, terminal and served page share.

Result, worth, guarantee, warnings, and what to do: deploy it, certify it on more rows, or keep asking the large model.
"""

from __future__ import annotations

import math

from kcm.cascade.policy import keeps_all_words
from kcm.certification.certificate import confidence
from kcm.costs import Prices
from kcm.report.formats import (
    MISSING,
    exact_points,
    known,
    money,
    number,
    percent,
    plural,
    points_interval,
    rounds_to_zero,
    unsigned_points,
    whole_percent,
)
from kcm.report.reading import (
    Columns,
    Numbers,
    certificate_of,
    certificates,
    deployed,
    escalates_all,
    is_certified,
    named,
    nearest,
    tested,
)


def headline(result: Numbers) -> str:
    """What the deployed collaborator saves, and at which loss."""
    (who, side), certificate = deployed(result), certificate_of(result)
    name, saving = named(result)[who], _saving(side["overall"], result)
    if escalates_all(certificate):
        return f"{name} saves no calls: the large model answers every input."
    if not is_certified(certificate):
        return f"{name} {saving}, without a guarantee on the loss."
    if certificate.get("epsilon") == 0:
        return f"{name} {saving} and is at least as accurate as the large model."
    scope = " in each task with a threshold of its own and over all other inputs" if certificate.get("tasks") else ""
    return f"{name} {saving} and loses at most {epsilon_words(certificate)} of accuracy{scope}."


def measured(result: Numbers) -> str:
    """What the deployed collaborator does on the measured rows."""
    overall = deployed(result)[1]["overall"]
    rate = overall.get("call_rate")
    share = whole_percent(1 - rate) if known(rate) else "an unmeasured share"
    bounds = points_interval(overall.get("difference_interval"))
    interval = f" (95% interval {bounds})" if known(overall.get("difference")) and bounds != MISSING else ""
    return (
        f"On {measured_rows(result)}, the small model answers {share} of the inputs; the cascade"
        f" {difference_words(overall)}{interval}."
    )


def measured_rows(result: Numbers) -> str:
    """The rows that a result was measured on."""
    on_validate = deployed(result)[1].get("measured_on") == "validate"
    return "the validate rows, which also chose the policy" if on_validate else "test"


def difference_words(overall: Numbers) -> str:
    """A measured difference as `loses 0.3 points against the large model`."""
    difference = overall.get("difference")
    if not known(difference):
        return "was not compared with the large model"
    if rounds_to_zero(100 * difference, 1):
        return "is as accurate as the large model"
    verb, against = ("gains", "over") if difference > 0 else ("loses", "against")
    return f"{verb} {unsigned_points(difference)} {against} the large model"


def promise(certificate: Numbers) -> str:
    """What is guaranteed of the deployed decision, without a full stop; the same words wherever it is shown."""
    reason = certificate.get("reason") or ("no threshold passed" if certificate else "there is no certificate")
    is_valid = all(row.get("valid") for row in certificates(certificate).values())
    if certificate.get("num_rows") == 0 or not is_valid:
        return f"No guarantee: {reason}"
    if escalates_all(certificate):
        return "Nothing can be lost: the large model answers every input"
    loss = f"at most {epsilon_words(certificate)} of accuracy are lost"
    if certificate.get("epsilon") == 0:
        loss = "the cascade is at least as accurate as the large model"
    basis = f"{number(certificate.get('num_rows'))} certify rows"
    if window := certificate.get("window"):
        basis = f"decisions {window['after'] + 1:,} to {window['upto']:,}, until {window['expires_at']}"
    bound = certificate.get("bound")
    limit = "at least" if known(bound) and bound < 0 else "at most"
    proof = "" if certificate.get("tasks") else f" prove {limit} {bound_words(certificate)}"
    return f"With at least {confidence_words(certificate)} probability, {loss} ({basis}{proof})"


def warnings(result: Numbers) -> list[str]:
    """What would mislead a reader who is not told; empty for an ordinary run."""
    overall = deployed(result)[1]["overall"]
    small, large, bad = overall.get("small_accuracy"), overall.get("large_accuracy"), result.get("bad_rows")
    lines = [f"{note}." for note in result.get("notes") or ()]
    if known(small) and known(large) and small >= large:
        lines.append(
            f"The small model alone ({percent(small)}) is at least as accurate as the large model ({percent(large)}):"
            " you may not need the large model."
        )
    lines += large_faults(result)
    if bad:
        lines.append(f"{plural(bad, 'row')} could not be read and {'was' if bad == 1 else 'were'} skipped.")
    policy = deployed(result)[1].get("policy") or {}
    decisions = [policy.get("decision") or {}, *(policy.get("task_decisions") or {}).values()]
    if any(row.get("decision") == "keep_all" for row in decisions):
        lines.append(f"No threshold is deployed: {keeps_all_words(policy.get('farthest'))}, however unsure it is.")
    if unknown := deployed(result)[1].get("unknown_classes"):
        at_first, later = percent(unknown["kept"], 0), percent(unknown["kept_once_noticed"], 0)
        lines.append(
            f"A brand-new class would go unnoticed at first: the small model would answer {at_first} of its inputs"
            f" ({later} once novelty detection reacts)."
        )
    return lines


def forecast_words(expected: Numbers) -> str:
    """A forecast of the share that is kept, with its interval, as `50.1% (80% interval 41.0% to 60.2%)`."""
    keep_rate, low, high = (percent(expected[name]) for name in ("keep_rate", "low", "high"))
    return f"{keep_rate} (80% interval {low} to {high})"


def epsilon_words(certificate: Numbers) -> str:
    """Epsilon as `2 points`."""
    epsilon = certificate.get("epsilon")
    return exact_points(epsilon) if known(epsilon) else "an unstated number of points"


def bound_words(certificate: Numbers) -> str:
    """The upper bound on the loss, rounded up, as `1.8 points`; if even the bound is a gain, it is called one."""
    bound = certificate.get("bound")
    if not known(bound):
        return MISSING
    stated = math.ceil(1000 * bound - 1e-6) / 1000  # a promise must not be rounded to a better one
    return f"a gain of {unsigned_points(stated)}" if bound < 0 else unsigned_points(stated)


def confidence_words(certificate: Numbers) -> str:
    """1 - delta as `90%`, rounded down; delta of all decisions together, which must all hold."""
    deltas = [row.get("delta") for row in certificates(certificate).values()]
    stated = [delta for delta in deltas if known(delta)]
    return confidence(stated) if len(stated) == len(deltas) else "an unstated"


def decision(values: Numbers) -> str:
    """A decision as `keep above 2.104`, `keep all` or `escalate all`."""
    if values.get("decision") == "threshold":
        return f"keep above {number(values.get('threshold'))}"
    return str(values.get("decision") or MISSING).replace("_", " ")


def prices_of(result: Numbers) -> Prices | None:
    """What answers cost, where the run knows it."""
    return Prices.model_validate(result["costs"]) if result.get("costs") else None


def _saving(overall: Numbers, result: Numbers) -> str:
    share, prices = overall.get("calls_saved"), prices_of(result)
    if not known(share):
        return "saves an unmeasured share of the calls"
    calls = f"saves {whole_percent(share)} of the calls to the large model"
    if not prices:
        return calls
    saved = prices.saved_per_1000(share)
    if saved < 0:
        return f"{calls} but costs {money(-saved, prices.currency)} more per 1,000 inputs"
    return f"{calls} ({money(saved, prices.currency)} per 1,000 inputs)"


def large_faults(result: Numbers) -> list[str]:
    """What is wrong with the large model's answers; empty for ordinary ones."""
    asked = result.get("large") or {}
    lines, rows = [], asked.get("rows") or 0
    if failed := asked.get("failed"):
        retry = "; the next run retries" if asked.get("waiting") else ""
        lines.append(
            f"The large model gave no answer to {failed:,} of {rows:,} rows ({percent(failed / rows)}){retry}."
        )
    if off_label := asked.get("off_label"):
        replies = ", ".join(repr(reply) for reply in asked.get("off_label_replies") or ())
        lines.append(
            f"{off_label:,} of {rows:,} answers of the large model ({percent(off_label / rows)}) are not on the"
            f" label list and count as wrong, such as {replies}."
        )
    return lines


def recommendation(result: Numbers, path: Columns | None = None, *, live: bool = True) -> str:
    """What to do with this run, and why; `path` is the certificate's path, if known.

    Without a `live` large model, only recorded answers, nothing can be deployed.
    """
    overall, certificate = deployed(result)[1]["overall"], certificate_of(result)
    if not certificate:
        return "Certify it before you deploy it: nothing limits the loss yet."
    if not is_certified(certificate):
        return _remedy(certificate, path or {})
    saved, difference, epsilon = overall.get("cost_saved"), overall.get("difference"), certificate.get("epsilon")
    if known(difference) and known(epsilon) and -difference > epsilon:
        return (
            f"Check before you deploy: on {measured_rows(result)} it loses {unsigned_points(difference)}, more than the"
            f" guaranteed {exact_points(epsilon)}. Either these rows differ from the certify rows, or it is chance."
        )
    if prices := prices_of(result):
        saved = prices.saved_per_1000(overall.get("calls_saved") or 0.0)
    if known(saved) and saved < 0:
        return "Keep asking the large model: the small side costs more than the calls that it saves."
    deploy = "Deploy it" if live else "Set a live model in `large` and run again to deploy it"
    if not known(difference):
        return f"{deploy}: a loss of at most {epsilon_words(certificate)} is guaranteed."
    return f"{deploy}: on {measured_rows(result)} it {difference_words(overall)}, within the guarantee."


def _remedy(certificate: Numbers, path: Columns) -> str:
    """What would make a guarantee possible that this run cannot give."""
    units, fewest = certificate.get("num_units"), certificate.get("fewest_units")
    epsilon, delta = certificate.get("epsilon"), certificate.get("delta")
    searched = certificate.get("searched") or {}
    if certificate.get("num_rows") == 0:
        return "Serve it, then run kcm update, which certifies it on traffic: nothing limits the loss yet."
    if searched.get("decision") == "escalate_all":
        return "Keep asking the large model: on validate, every threshold loses more than tuning allows."
    if known(units) and known(fewest) and units < fewest:
        return (
            f"Use more rows: {number(units)} independent certify rows are too few for a loss of"
            f" {epsilon_words(certificate)}; at least {number(fewest)} are needed{_wider(certificate)}."
        )
    point = nearest(tested(path), searched.get("threshold"))
    if point is None or not (known(epsilon) and known(delta)):
        return "Keep asking the large model, or allow a larger loss: no threshold passed the test."
    loss, bound = max(point["loss"], 0.0), point.get("bound")
    if loss < epsilon:
        count = number(math.ceil(-math.log(delta) / divergence(loss, epsilon) / 100) * 100)
        return (
            f"Use more rows: on certify, the searched threshold loses {unsigned_points(loss)}; about {count} rows like"
            " these would prove it."
        )
    choice = f"Allow a loss of {exact_points(math.ceil(200 * bound) / 200)}, or keep" if known(bound) else "Keep"
    return f"{choice} asking the large model: on certify, the searched threshold loses {unsigned_points(loss)}."


def _wider(certificate: Numbers) -> str:
    """The loss that so few units can certify, by the test `regret`."""
    units, delta = certificate.get("num_units"), certificate.get("delta")
    if not units or not known(delta) or certificate.get("method") != "regret":
        return ""
    return f", or allow {exact_points(math.ceil(200 * (1 - delta ** (1 / units))) / 200)}"


def divergence(loss: float, epsilon: float) -> float:
    """Kullback-Leibler divergence of coins: n rows that lose `loss` have a p-value of at most exp(-n divergence)."""
    part = loss * math.log(loss / epsilon) if loss > 0 else 0.0
    return part + (1 - loss) * math.log((1 - loss) / (1 - epsilon))
