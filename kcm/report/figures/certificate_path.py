"""The certificate's path: the p-value of each tested threshold, from the strictest towards keeping more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kcm.report.drawing.markup import Html
from kcm.report.drawing.plot import Axis, Plot, drawable
from kcm.report.figures.frame import empty, figure
from kcm.report.text import words
from kcm.report.text.formats import known, number
from kcm.report.text.reading import Numbers

TITLE = "Which thresholds hold"
SMALLEST_P = 1e-4  # anything below is drawn here: what matters happens near delta


def certificate_path(path: Mapping[str, Sequence[float]], certificate: Numbers) -> Html:
    """p-values on a logarithmic scale against the thresholds, with delta, the certified part and the deployed one.

    `path` is tested without credit for wins of the small model, whatever the certificate's own method.
    """
    tested = drawable(path.get("threshold", ()), path.get("p_value", ()))
    if not tested:
        return empty(TITLE, words.untested(certificate))
    decades = range(round(math.log10(SMALLEST_P)), 1)
    y_axis = Axis("p-value", decades[0] - 0.15, 0.15, [(decade, f"{10.0**decade:g}") for decade in decades])
    x_axis = Axis.over("threshold on the gate score", [t for t, _ in tested], number, padding=0.03)
    plot = Plot(x_axis, y_axis, left=72.0)
    _certified(plot, certificate.get("certified") or {})
    delta, threshold = certificate.get("delta"), certificate.get("threshold")
    if known(delta):
        plot.across(math.log10(max(delta, SMALLEST_P)), "limit dashed")
        plot.explain(f"δ = {number(delta)}", "limit dashed", "line")
    plot.line([(t, math.log10(max(p, SMALLEST_P))) for t, p in tested], "kcm")
    plot.explain("p-value", "kcm", "line")
    if known(threshold):
        plot.upright(threshold, "ink dashed")
        plot.explain(f"deployed threshold, {number(threshold)}", "ink dashed", "line")
    return figure(TITLE, words.certificate_path(certificate), plot)


def _certified(plot: Plot, lowest: Numbers) -> None:
    """A band over the thresholds from the lowest certified decision upwards."""
    if lowest.get("decision") not in ("threshold", "keep_all"):
        return
    start = lowest.get("threshold")
    plot.band(start if known(start) else plot.x_axis.low, plot.x_axis.high, "kcm")
    plot.explain("certified", "kcm", "band")
