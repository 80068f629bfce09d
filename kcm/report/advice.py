"""What to do with a run: deploy it, certify it on more rows, or keep asking the large model."""

from __future__ import annotations

import math
from statistics import NormalDist

from kcm.report.formats import exact_points, known, number, unsigned_points
from kcm.report.reading import Columns, Numbers, certificate_of, deployed, is_certified, nearest, tested
from kcm.report.summary import difference_words, epsilon_words, measured_rows, prices_of

_UNDECIDED = 0.4  # a p-value beyond which a sample does not say which side is better


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
    if epsilon == 0 and point["loss"] < 0 and delta < point["p_value"] < _UNDECIDED and known(units):
        rows = units * _more_rows(point["p_value"], delta)
        return _use_more(f"gains {unsigned_points(point['loss'])}", rows)
    if loss < epsilon:
        return _use_more(f"loses {unsigned_points(loss)}", -math.log(delta) / divergence(loss, epsilon))
    choice = f"Allow a loss of {exact_points(math.ceil(200 * bound) / 200)}, or keep" if known(bound) else "Keep"
    return f"{choice} asking the large model: on certify, the searched threshold loses {unsigned_points(loss)}."


def _use_more(outcome: str, rows: float) -> str:
    count = number(math.ceil(rows / 100) * 100)
    return f"Use more rows: on certify, the searched threshold {outcome}; about {count} rows like these would prove it."


def _wider(certificate: Numbers) -> str:
    """The loss that so few units can certify, by the test `regret`."""
    units, delta = certificate.get("num_units"), certificate.get("delta")
    if not units or not known(delta) or certificate.get("method") != "regret":
        return ""
    return f", or allow {exact_points(math.ceil(200 * (1 - delta ** (1 / units))) / 200)}"


def _more_rows(p_value: float, delta: float) -> float:
    """How many times the rows a sign test needs for a p-value of `delta`, by the normal approximation."""
    wanted, reached = (-NormalDist().inv_cdf(p) for p in (delta, p_value))
    return (wanted / reached) ** 2


def divergence(loss: float, epsilon: float) -> float:
    """Kullback-Leibler divergence of coins: n rows that lose `loss` have a p-value of at most exp(-n divergence)."""
    part = loss * math.log(loss / epsilon) if loss > 0 else 0.0
    return part + (1 - loss) * math.log((1 - loss) / (1 - epsilon))
