"""What the certify rows lost at each tested threshold, beside the loss that is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kcm.report.drawing.markup import Html
from kcm.report.drawing.plot import Axis, Plot, Point, drawable
from kcm.report.figures.frame import empty, figure, point_tick, share_axis
from kcm.report.text import words
from kcm.report.text.formats import known, percent, points
from kcm.report.text.reading import Numbers

TITLE = "What the certify rows lost"


def regret(path: Mapping[str, Sequence[float]], certificate: Numbers) -> Html:
    """Accuracy lost on certify against the call rate, with epsilon and the deployed threshold."""
    lost = drawable(path.get("call_rate", ()), path.get("regret", ()))
    if not lost:
        return empty(TITLE, words.untested(certificate))
    epsilon, deployed = certificate.get("epsilon"), _nearest(path, certificate.get("threshold"))
    limits = [epsilon] if known(epsilon) else []
    y_axis = Axis.over("accuracy lost, points", [*(y for _, y in lost), *limits], point_tick)
    plot = Plot(share_axis("call rate: share of inputs sent to the large model"), y_axis)
    for limit in limits:
        plot.across(limit, "limit dashed")
        plot.explain(f"allowed loss ε, {words.epsilon_words(certificate)}", "limit dashed", "line")
    plot.line(lost, "kcm")
    plot.explain("lost on certify", "kcm", "line")
    if deployed:
        tip = f"deployed: {points(deployed[1])} points at a call rate of {percent(deployed[0])}"
        plot.mark(deployed, "circle", "kcm", tip, size=6)
        plot.explain("deployed", "kcm", "circle")
    return figure(TITLE, words.regret(certificate), plot)


def _nearest(path: Mapping[str, Sequence[float]], threshold: float | None) -> Point | None:
    """Call rate and loss of the tested threshold nearest to `threshold`."""
    if not known(threshold):
        return None
    rows = zip(path["threshold"], path["call_rate"], path["regret"], strict=True)
    tested = [row for row in rows if all(map(known, row))]
    if not tested:
        return None
    _, call_rate, lost = min(tested, key=lambda row: abs(row[0] - threshold))
    return call_rate, lost
