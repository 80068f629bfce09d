"""The pages of a run, `kcm route`, `kcm label` and a loop, which extend one template; the section on a served model.

A page is one HTML file that needs no network. Its only script moves the slider over thresholds and shows the tips of
charts; the page's own policy names that script by its hash and forbids any other.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kcm.costs import Prices
from kcm.errors import ArtefactError
from kcm.report import figures, formats, reading, summary
from kcm.report.figures import Chart, drawing
from kcm.report.formats import MISSING, percent
from kcm.report.reading import Numbers, Who

if TYPE_CHECKING:  # scikit-learn, which a served page does not need
    from kcm.labelling.certificate import TableCertificate
    from kcm.labelling.label import LabelledTable


@dataclass(frozen=True)
class ReportInputs:
    """Everything a report shows; a metric that was not measured is None and is shown with its reason.

    `result`: the run's result, as in `result.json`; of `kcm` and `mcm` the first is the one that is deployed. For `kcm
    route`, what `reading.routed` makes of its certificate. `frontiers`: per collaborator (`kcm`, `mcm`) the columns
    `call_rate`, `accuracy` and `threshold`, on test. `reliability`: per collaborator, bins with `confidence`,
    `accuracy` and `count`. `trials`: per Tune trial `number`, `collaborator`, `params`, `area`, `calls_saved`,
    `pareto`. `certificate_path`: see `certificate_curve`. `lineage`: the fingerprint of every stage. `columns`: those
    of a table of logged answers. `gates`: the `verdict` and the `reason` of each promotion gate of a
    challenger, by its name.
    """

    result: dict[str, Any]
    frontiers: dict[str, dict[str, list[float]]]
    reliability: dict[str, list[dict[str, Any]]]
    certificate_path: dict[str, Any]
    machine: str
    trials: list[dict[str, Any]] | None = None
    lineage: dict[str, str] | None = None
    config_yaml: str = ""
    columns: dict[str, str] | None = None
    gates: dict[str, dict[str, Any]] | None = None


def render_report(inputs: ReportInputs) -> str:
    """The report as HTML; text from data is escaped."""
    result, path = inputs.result, inputs.certificate_path
    frontier = inputs.frontiers.get(reading.deployed(result)[0], {})
    at = reading.certificate_of(result).get("threshold")
    points = reading.threshold_points(frontier, path, summary.prices_of(result), at)
    return render("run", inputs=inputs, result=result, path=path, points=points)


def model_section(
    who: Who,
    metrics: Numbers,
    certificate: Numbers,
    policy: Numbers,
    prices: Prices | None = None,
    void: str | None = None,
) -> Markup:
    """One deployed model: what it does, what is promised of it, its frontier and its accuracy matrix.

    `metrics` are those of a bundle (`metrics.json`), empty where it was never evaluated; `certificate` and `policy` as
    in `result.json`; `void` says why nothing is promised here. Text from data is escaped.
    """
    result: dict[str, Any] = {"certificate": certificate, "costs": prices.model_dump() if prices else None}
    if "overall" in metrics:
        result[who] = metrics
    return Markup(render("model", result=result, who=who, policy=policy, void=void))


def render_loop(state: Numbers) -> str:
    """The turns of a loop as HTML; `state` as in `loop.json`, text from data is escaped."""
    return render("loop", state=state)


def write_report(inputs: ReportInputs, path: Path) -> None:
    """Write the page to `path` atomically; raises ArtefactError if that fails."""
    write_page(render_report(inputs), path)


def write_page(page: str, path: Path) -> None:
    """Write a page to `path`, as `write_report` does."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Users' data may hold lone surrogates, which UTF-8 cannot.
        unfinished.write_text(page, encoding="utf-8", errors="replace")
        os.replace(unfinished, path)
    except OSError as error:
        reason = f"the report cannot be written: {error.strerror}"
        raise ArtefactError(reason, where=str(path), hint="Free space or choose another folder") from None


def render(template: str, **values: Any) -> str:
    """A template with these values; text from data is escaped."""
    return _environment().get_template(f"{template}.html.jinja").render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("kcm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    shown = (formats, reading)
    names = {name: value for module in shown for name, value in vars(module).items() if not name.startswith("_")}
    environment.tests["known"] = formats.known
    environment.globals |= names | {"figures": figures, "summary": summary, "recommendation": summary.recommendation}
    environment.globals |= {"style": _read("style.css"), "script": _read("page.js"), "hash_of": _hash_of, "machine": ""}
    return environment


def _read(name: str) -> Markup:
    """A file of this package, which is safe to insert."""
    return Markup(files("kcm.report").joinpath(name).read_text(encoding="utf-8"))


def _hash_of(script: str) -> str:
    """How a page's policy names the one script that may run."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


NUM_SHOWN = 20  # rows of either list
MAX_CHARS = 280  # of a text
FLAT = 0.005  # a curve that changes the log-odds by less has no effect


@dataclass(frozen=True)
class LabelCounts:
    """Rows of a label, by the model that gave it; `failed` rows got no answer."""

    label: str
    small: int
    llm: int
    failed: int

    @property
    def rows(self) -> int:
        """All of them."""
        return self.small + self.llm + self.failed


@dataclass(frozen=True)
class ShownRow:
    """A row to look at: its number in the table, from 1, and the small model's answer with its probability.

    `llm` is the large model's answer, empty if it was not asked.
    """

    row: int
    text: str
    small: str
    probability: float
    llm: str


@dataclass(frozen=True)
class LabelPage:
    """The numbers of one page; money is in dollars, None if no price is known. `flat` are signals without effect.

    `differing` are some of the `num_differing` texts whose answers were bought after the small model was fixed, of
    `num_compared`, and to which it would have given another answer.
    """

    name: str
    certificate: TableCertificate
    cost: float
    saved: float | None
    num_empty: int
    labels: list[LabelCounts]
    curves: list[Chart]
    flat: list[str]
    kept: list[ShownRow]
    num_kept: int
    differing: list[ShownRow]
    num_differing: int
    num_compared: int
    bundle: str = ""

    @classmethod
    def of(cls, table: LabelledTable, name: str, bundle: str = "") -> LabelPage:
        """The page of a finished job on the table `name`; `bundle` is the name of its bundle, empty without one."""
        result, certificate = table.result, table.certificate
        kept_K = np.flatnonzero(~result.bought_U & ~result.failed_U)
        drawn = np.random.default_rng(certificate.seed).permutation(kept_K)[:NUM_SHOWN]
        compared_U = result.bought_U & ~result.taught_U
        differing_D = np.flatnonzero(compared_U & (result.guess.answer_U != result.answer_U))
        surest = differing_D[np.argsort(result.guess.wrong_U[differing_D], kind="stable")][:NUM_SHOWN]
        charts, flat = curves(table)
        return cls(
            name=name,
            certificate=certificate,
            cost=table.cost,
            saved=_saved(table),
            num_empty=table.texts.num_empty,
            labels=_counts(table),
            curves=charts,
            flat=flat,
            kept=_rows(table, sorted(drawn.tolist())),
            num_kept=len(kept_K),
            differing=_rows(table, surest.tolist()),
            num_differing=len(differing_D),
            num_compared=int(compared_U.sum()),
            bundle=bundle,
        )


def render_labelled(page: LabelPage) -> str:
    """A labelled table as HTML; text from data is escaped."""
    return render("labelled", page=page, percent_of=percent_of)


def curves(table: LabelledTable) -> tuple[list[Chart], list[str]]:
    """A chart for each signal of the judge, the strongest first, on one scale; and the signals without effect."""
    if table.judge is None:
        return [], []
    drawn = list(zip(table.judge.curves.signals, table.judge.curves.drawn(), strict=True))
    drawn.sort(key=lambda curve: -float(np.ptp(curve[1][1])))
    ends = [end(added) for _, (_, added) in drawn for end in (np.min, np.max)]
    charts, flat = [], []
    for signal, (points, added) in drawn:
        if np.ptp(added) < FLAT:
            flat.append(signal.name)
            continue
        rows = [{"x": x, "y": y} for x, y in zip(points.tolist(), added.tolist(), strict=True)]
        first, last = rows[0]["x"], rows[-1]["x"]
        limits = [{"x": first, "y": float(end)} for end in (min(ends), max(ends))]
        zero = [{"x": x, "y": 0.0} for x in (first, last)]
        svg = drawing("curve", limits=limits, zero=zero, curve=rows)
        charts.append(Chart(signal.name.capitalize(), f"{signal.meaning[:1].upper()}{signal.meaning[1:]}.", svg))
    return charts, flat


def _rows(table: LabelledTable, units: list[int]) -> list[ShownRow]:
    """Rows of these texts, with the large model's answer if it was bought."""
    result, names = table.result, table.labels.names
    first_U = table.texts.first_rows() + 1
    rows = []
    for unit in units:
        text, llm = table.texts.texts[unit], names[result.answer_U[unit]] if result.bought_U[unit] else ""
        text = text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}…"
        probability = 1 - float(result.guess.wrong_U[unit])
        rows.append(ShownRow(int(first_U[unit]), text, names[result.guess.answer_U[unit]], probability, llm))
    return rows


def _counts(table: LabelledTable) -> list[LabelCounts]:
    """Rows by label, the most frequent first; labels without rows too."""
    result, names = table.result, table.labels.names
    sources_U = (~result.bought_U & ~result.failed_U, result.bought_U, result.failed_U)
    columns = [
        np.bincount(result.answer_U, table.texts.copies_U * source_U, minlength=len(names)).astype(int).tolist()
        for source_U in sources_U
    ]
    return sorted(map(LabelCounts, names, *columns), key=lambda counts: -counts.rows)


def _saved(table: LabelledTable) -> float | None:
    """The expected price of the answers that were not bought; None if no price is known."""
    if table.estimate is None or not table.estimate.calls or not table.estimate.currency:
        return None
    price = table.estimate.currency / table.estimate.calls
    return price * (table.certificate.texts - table.certificate.bought)


def percent_of(part: int, whole: int) -> str:
    """12 of 48 as `25%`; an en dash of nothing."""
    return percent(part / whole, 0) if whole else MISSING
