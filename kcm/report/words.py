"""What a run comes to, in sentences that report, terminal and served page share: result, promise, and advice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import count
from statistics import NormalDist

from kcm.certification.certificate import confidence
from kcm.certification.ledger import look_delta, question_delta
from kcm.costs import Prices
from kcm.report.formats import (
    MISSING,
    exact_points,
    known,
    money,
    number,
    percent,
    plural,
    points,
    points_interval,
    rounds_to_zero,
    unsigned_points,
    whole_percent,
)
from kcm.report.reading import (
    Numbers,
    Who,
    certificate_of,
    certificates,
    collaborators,
    deployed,
    escalates_all,
    is_certified,
    names_of,
    tested_at,
)

Columns = Mapping[str, Sequence[float]]
_CONTROLS: Mapping[Who, str] = {
    "kcm": "with KANs",
    "mcm": "without KANs",  # MLPs, whose hidden layer stays as it was drawn in closed form
    "quadratic": "of quadratic features",
    "linear": "of logistic regression on the same features",
}


_UNDECIDED = 0.4  # a p-value beyond which a sample does not say which side is better
_CHOSE = "the rows that chose the policy"


def headline(result: Numbers) -> str:
    """What the deployed collaborator saves, and at which loss."""
    (who, found), certificate = deployed(result), certificate_of(result)
    name, saves = names_of(result)[who].replace("the", "The", 1), _saves(found["overall"], result)
    if escalates_all(certificate):
        return f"{name} sends every input to the large model{_because(certificate)}."
    if not is_certified(certificate):
        return f"{name} {saves}; its loss is not certified{_because(certificate)}."
    within = " in every task with a threshold of its own, and over all other inputs" if certificate.get("tasks") else ""
    at_most = f"no more than {epsilon_words(certificate)}" if certificate.get("epsilon") != 0 else "no accuracy"
    return f"{name} {saves} at {at_most} lost{within}."


def measured(result: Numbers) -> str:
    """What the deployed collaborator does on the measured rows, and what the others do in its place."""
    own, found = deployed(result)
    names = names_of(result)
    sentences = [f"On {measured_rows(result)}, {names[own]} {_does(found['overall'])}."]
    if measured_rows(result) == _CHOSE:
        sentences.insert(0, "There are no test rows: the certificate is what is known of rows that chose nothing.")
    sentences += [
        f"{names[who]}, the control {_CONTROLS[who]}, {_does(control['overall'])}."
        for who, control in collaborators(result).items()
        if who != own
    ]
    return " ".join(sentences)


def measured_rows(result: Numbers) -> str:
    """The rows that a result was measured on."""
    split = str(deployed(result)[1].get("measured_on"))
    return {"validate": _CHOSE, "certify": "the certify rows"}.get(split, "test")


def added_to_base(result: Numbers) -> str:
    """What the network adds to the base that it stands on, in points on validate; empty without a base."""
    base = deployed(result)[1].get("base")
    if not base:
        return ""
    name = {"means": "class means", "lda": "linear discriminant analysis"}[base["kind"]]
    return (
        f"Its small network adds {points(base['small_accuracy'] - base['accuracy'])} points of accuracy on validate to"
        f" its base: {name} alone is right for {percent(base['accuracy'])}, with the network"
        f" {percent(base['small_accuracy'])}."
    )


def taught_by_answers(result: Numbers) -> str:
    """What rows without a label have taught the deployed collaborator; empty where there were none."""
    weight = deployed(result)[1].get("answer_weight")
    if weight is None:
        return ""
    found = "when labelled rows are left out, that answers most of them rightly"
    if not weight:
        return f"Rows without a label taught it nothing: {found}."
    counts = "as much as" if weight == 1 else f"{number(weight)} times as much as"
    return f"A row without a label counts {counts} one with, by the large model's answer: {found}."


def forecast_words(expected: Numbers) -> str:
    """A forecast of the share that is kept, with its interval, as `50.1% (80% interval 41.0% to 60.2%)`."""
    keep_rate, low, high = (percent(expected[name]) for name in ("keep_rate", "low", "high"))
    return f"{keep_rate} (80% interval {low} to {high})"


def forecast(result: Numbers) -> str:
    """What the search forecast that a certificate would leave to the small side, and what it left; else empty."""
    found = deployed(result)[1]
    expected, call_rate = found.get("forecast"), found["overall"].get("call_rate")
    if not expected:
        return ""
    sentence = f"Before the certify rows were read, its share was forecast to be {forecast_words(expected)}"
    if not known(call_rate):
        return f"{sentence}."
    certified = "As certified" if is_certified(certificate_of(result)) else "As deployed"
    return f"{sentence}. {certified}, on {measured_rows(result)} it answers {percent(1 - call_rate)}."


def chosen_by(policy: Numbers) -> str:
    """What the search chose a policy by; empty where it is not known."""
    goal = {"calls": "the fewest calls", "accuracy": "the highest accuracy"}.get(str(policy.get("goal")))
    return f"The policy was chosen for {goal} (tune.goal: {policy['goal']})." if goal else ""


def why_deployed(result: Numbers) -> str:
    """Why this collaborator is deployed, by how many networks, and its goal; empty where a run does not say."""
    sentence = str((result.get("deployed") or {}).get("reason") or "")
    if deployed(result)[1].get("num_networks") == 1:
        sentence += (sentence and "; ") + (
            "its judge and its small model are the same network, since nothing was distilled: one is deployed, which"
            " halves the work of the networks"
        )
    return " ".join(filter(None, (sentence and f"{sentence}.", chosen_by(deployed(result)[1].get("policy") or {}))))


def promise(certificate: Numbers) -> str:
    """What is promised of the deployed decision, its bound and its delta; the same words wherever it is shown."""
    if not certificate:
        return "Nothing is promised: there is no certificate"
    if certificate.get("num_rows") == 0:
        return f"Nothing is promised{_because(certificate)}"
    if not all(each.get("valid") for each in certificates(certificate).values()):
        return f"The promised call rate cannot be kept{_because(certificate)}"
    if escalates_all(certificate):
        nothing = f"Nothing can be lost, since the large model answers everything{_because(certificate)}"
        return nothing + _ledger(certificate)
    kind = f"by {certificate.get('method')} on {number(certificate.get('num_rows'))} certify rows{_needed(certificate)}"
    if window := certificate.get("window"):
        kind += f", decisions {window['after'] + 1} to {window['upto']}; until {window['expires_at']}"
    bound = "" if certificate.get("tasks") else f"upper bound {bound_words(certificate)}, "
    exact = certificate.get("epsilon") == 0
    kept = "As accurate as the large model or more" if exact else f"At most {epsilon_words(certificate)} lost"
    return (
        f"{kept}, with a probability of at least {confidence_words(certificate)}"
        f" ({bound}{kind}){_because(certificate)}{_ledger(certificate)}"
    )


def recommendation(result: Numbers, path: Columns | None = None) -> str:
    """What to do with this run, and why; `path` is the certificate's, where it is known."""
    overall, certificate = deployed(result)[1]["overall"], certificate_of(result)
    if not certificate:
        return "Certify it first: nothing bounds what the cascade loses."
    if not is_certified(certificate):
        return _mend(certificate, path or {})
    saved, difference, epsilon = overall.get("cost_saved"), overall.get("difference"), certificate.get("epsilon")
    if known(difference) and known(epsilon) and -difference > epsilon:
        lost = f"loses {unsigned_points(difference)}, more than the certified {exact_points(epsilon)}"
        differ = "these rows may differ from the certify rows, or chance was against it"
        return f"Look before you deploy: on {measured_rows(result)} it {lost}; {differ}."
    if prices := prices_of(result):
        saved = prices.saved_per_1000(overall.get("calls_saved") or 0.0)
    if known(saved) and saved < 0:
        return "Keep asking the large model: the small side costs more than the calls that it saves."
    return f"Deploy it: the loss is certified, and on {measured_rows(result)} it {_loses(overall)}."


def _mend(certificate: Numbers, path: Columns) -> str:
    """What would make a promise possible that cannot be given now."""
    units, fewest = certificate.get("num_units"), certificate.get("fewest_units")
    epsilon, delta = certificate.get("epsilon"), certificate.get("delta")
    if certificate.get("num_rows") == 0:
        return "Serve it and let `kcm update` certify it on traffic: nothing bounds yet what it loses."
    if not certificate.get("valid"):
        return "Allow more calls or more loss: no threshold keeps both promises."
    if (certificate.get("searched") or {}).get("decision") == "escalate_all":
        return "Keep asking the large model: on validate every threshold loses more than tuning allows."
    if known(units) and known(fewest) and units < fewest:
        enough = 1 - delta ** (1 / units) if units and known(delta) and certificate.get("method") == "regret" else None
        wider = f"an epsilon of {exact_points(math.ceil(200 * enough) / 200)}" if enough else "a larger epsilon"
        return (
            f"Use more rows: {number(units)} independent certify rows cannot certify {epsilon_words(certificate)},"
            f" whatever they say; {number(fewest)} are needed, or {wider}."
        )
    tested = tested_at(path, (certificate.get("searched") or {}).get("threshold"))
    if tested is None or not (known(epsilon) and known(delta)):
        return "Keep asking the large model, or allow a larger loss: no threshold could be certified."
    loss, bound = max(tested["loss"], 0.0), tested.get("bound")
    if epsilon == 0 and tested["loss"] < 0 and delta < tested["p_value"] < _UNDECIDED and known(units):
        needed = math.ceil(units * _more_rows(tested["p_value"], delta) / 100) * 100
        return (
            f"Use more rows: the searched threshold gained {unsigned_points(tested['loss'])} on certify; about"
            f" {number(needed)} certify rows like these would show it."
        )
    if loss < epsilon:
        needed = math.ceil(-math.log(delta) / divergence(loss, epsilon) / 100) * 100
        return (
            f"Use more rows: the searched threshold lost {unsigned_points(loss)} on certify, less than the allowed"
            f" {exact_points(epsilon)}; about {number(needed)} certify rows like these would show it."
        )
    another = (
        f"Choose an epsilon of {exact_points(math.ceil(200 * bound) / 200)} or more, or keep"
        if known(bound)
        else "Keep"
    )
    return f"{another} asking the large model: the searched threshold lost {unsigned_points(loss)} on certify."


def _more_rows(p_value: float, delta: float) -> float:
    """How many times the rows a sign test needs for a p-value of `delta`, by the normal approximation."""
    wanted, reached = (-NormalDist().inv_cdf(p) for p in (delta, p_value))
    return (wanted / reached) ** 2


def divergence(loss: float, epsilon: float) -> float:
    """Kullback-Leibler divergence of coins: n rows that lose `loss` have a p-value of at most exp(-n divergence)."""
    part = loss * math.log(loss / epsilon) if loss > 0 else 0.0
    return part + (1 - loss) * math.log((1 - loss) / (1 - epsilon))


def notices(result: Numbers) -> list[str]:
    """What would mislead if it were left unsaid; empty for an ordinary run."""
    overall = deployed(result)[1]["overall"]
    small, large, bad = overall.get("small_accuracy"), overall.get("large_accuracy"), result.get("bad_rows")
    found = [f"{note}." for note in result.get("notes") or ()]
    if known(small) and known(large) and small >= large:
        found.append(
            f"On {measured_rows(result)} the small model alone ({percent(small)}) is at least as accurate as the large"
            f" model ({percent(large)}): never escalating would be cheaper."
        )
    found += large_faults(result)
    if bad:
        found.append(f"{plural(bad, 'row')} could not be used and {'was' if bad == 1 else 'were'} left out.")
    return found


def large_faults(result: Numbers) -> list[str]:
    """What is wrong with the large model's answers, where it was asked; empty where nothing is."""
    asked = result.get("large") or {}
    prompted = (asked.get("prompts") or {}).items()
    return [
        *_faults(asked, ""),
        *(fault for mode, took in prompted for fault in _faults(took, f" under {mode} prompts")),
    ]


def _faults(asked: Numbers, where: str) -> list[str]:
    found, rows = [], asked.get("rows") or 0
    if failed := asked.get("failed"):
        again = "; the next run asks again" if asked.get("waiting") else ""
        found.append(
            f"The large model gave no answer to {failed:,} of {rows:,} rows ({percent(failed / rows)}){where}{again}."
        )
    if off_label := asked.get("off_label"):
        replies = ", ".join(repr(reply) for reply in asked.get("off_label_replies") or ())
        found.append(
            f"{off_label:,} of {rows:,} answers of the large model ({percent(off_label / rows)}){where} are not on the"
            f" label list and count as wrong, such as {replies}."
        )
    return found


def epsilon_words(certificate: Numbers) -> str:
    """Epsilon as `2 points`."""
    epsilon = certificate.get("epsilon")
    return exact_points(epsilon) if known(epsilon) else "an unstated loss"


def bound_words(certificate: Numbers) -> str:
    """The upper bound on the loss as `1.8 points`; where even the bound is a gain, it is called one."""
    bound = certificate.get("bound")
    if not known(bound):
        return MISSING
    return f"a gain of {unsigned_points(bound)}" if bound < 0 else unsigned_points(bound)


def confidence_words(certificate: Numbers) -> str:
    """1 - delta as `90%`, rounded down; delta of all decisions together, which must hold at once."""
    spent = spent_delta(certificate)
    return "an unstated share" if spent is None else confidence([spent])


def spent_delta(certificate: Numbers) -> float | None:
    """The delta of all decisions together."""
    decisions = certificates(certificate).values()
    spent = [delta for each in decisions if known(delta := each.get("delta"))]
    return sum(spent) if len(spent) == len(decisions) else None


def _needed(certificate: Numbers) -> str:
    """How many independent rows there were, where rows come in groups, and how many the promise needed at least."""
    rows, units, fewest = (certificate.get(name) for name in ("num_rows", "num_units", "fewest_units"))
    if not known(fewest):
        return ""
    drawn = f" in {number(units)} groups" if known(units) and units != rows else ""
    return f"{drawn}, at least {number(fewest)} were needed"


def _ledger(certificate: Numbers) -> str:
    """Why less than the delta that was asked for is spent."""
    asked, spent = certificate.get("asked_delta"), spent_delta(certificate)
    if not known(asked) or not spent or spent > 0.999 * asked:
        return ""
    may_spend = look_delta if certificate.get("window") else question_delta  # a window belongs to a lineage
    look = next(v for v in count(1) if may_spend(asked, v) < 1.001 * spent)
    what = "the first look" if look == 1 else f"look {look}"
    return f"; {what} at these rows uses {percent(spent / asked, 0)} of δ {number(asked)}"


def prices_of(result: Numbers) -> Prices | None:
    """What answers cost, where the run knows it."""
    return Prices.model_validate(result["costs"]) if result.get("costs") else None


def decision(values: Numbers) -> str:
    """A decision as `keep above 2.104`, `keep all` or `escalate all`."""
    if values.get("decision") == "threshold":
        return f"keep above {number(values.get('threshold'))}"
    return str(values.get("decision") or MISSING).replace("_", " ")


def _saves(overall: Numbers, result: Numbers) -> str:
    share, prices = overall.get("calls_saved"), prices_of(result)
    if not known(share):
        return "saves an unmeasured share of the calls"
    if not prices:
        return f"saves {whole_percent(share)} of the calls to the large model"
    saved = prices.saved_per_1000(share)
    verb = "costs" if saved < 0 else "saves"
    return f"{verb} {money(abs(saved), prices.currency)}{' more' if saved < 0 else ''} per 1,000 inputs"


def _does(overall: Numbers) -> str:
    difference, rate = overall.get("difference"), overall.get("call_rate")
    kept = f"{whole_percent(1 - rate)} of the inputs" if known(rate) else "an unmeasured share of the inputs"
    whole = {0.0: "every input", 1.0: "no input"}.get(rate) if known(rate) else None
    answers = f"answers {whole or kept} itself"
    if not known(difference):
        return f"{answers}; its accuracy was not compared with the large model's"
    interval = f"(95% interval of the difference: {points_interval(overall.get('difference_interval'))})"
    return f"{answers} and {_loses(overall)} {interval}"


def _loses(overall: Numbers) -> str:
    difference = overall.get("difference")
    if not known(difference) or rounds_to_zero(100 * difference, 1):
        return "is as accurate as the large model alone" if known(difference) else "was not measured"
    verb, against = ("gains", "over") if difference > 0 else ("loses", "against")
    return f"{verb} {unsigned_points(difference)} {against} the large model alone"


def _because(certificate: Numbers) -> str:
    reason = str(certificate.get("reason") or "").strip().rstrip(".")
    return f": {reason}" if reason else ""
