"""One deployed model in words and figures, for a page that serves it: what the report says of it, without the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kcm.report import figures, tables
from kcm.report.drawing.markup import Html, element, join
from kcm.report.header import key_figures
from kcm.report.text import words
from kcm.report.text.formats import known
from kcm.report.text.reading import Numbers, Who, task_names


def model_section(who: Who, metrics: Numbers, certificate: Numbers, policy: Numbers) -> Html:
    """What the model does, what is promised of it, its frontier and its accuracy matrix.

    `metrics` are those of a bundle (`metrics.json`), empty where it was never evaluated; `certificate` and `policy` as
    in `result.json`. Text from data is escaped.
    """
    promised = tables.certificate_table(certificate) if certificate else None
    if "overall" not in metrics:
        unmeasured = element("p", "This model was never evaluated: there is no frontier and no accuracy matrix.")
        return join(element("p", words.policy(policy), class_="policy"), unmeasured, promised)
    result = {who: metrics, "certificate": certificate}
    return join(
        element("p", words.headline(result), class_="headline"),
        element("p", words.policy(policy), class_="policy"),
        key_figures(result),
        element("div", _frontier(who, result), _matrix(who, result), class_="pair"),
        promised,
    )


def _frontier(who: Who, result: Numbers) -> Html:
    frontier: Mapping[str, Sequence[float]] | None = result[who].get("frontier")
    return figures.frontier({who: frontier} if frontier else {}, result)


def _matrix(who: Who, result: Numbers) -> Html | None:
    matrix = result[who].get("accuracy_matrix") or []
    values = [value for row in matrix for value in row if known(value)]
    if not values:
        return None
    return tables.accuracy_matrix(who, matrix, task_names(result), min(values), max(values))
