"""The pages of a run and a loop, and the section on a served model; every page extends one template.

A page is one HTML file that needs no network. Its only script moves the slider over thresholds and shows the tips of
charts; the page's own policy names that script by its hash and forbids any other.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kcm.costs import Prices
from kcm.errors import ArtefactError
from kcm.local_files import drafted
from kcm.report import figures, formats, reading, summary
from kcm.report.reading import Numbers, Who


@dataclass(frozen=True)
class ReportInputs:
    """Everything a report shows; a metric that was not measured is None and is shown with its reason.

    `result`: the run's result, as in `result.json`; of `kcm` and `mcm` the first is the one that is deployed.
    `frontiers`: per collaborator (`kcm`, `mcm`) the columns `call_rate`, `accuracy` and `threshold`, on test. `trials`:
    per Tune trial `number`, `collaborator`, `params`, `area`, `calls_saved`. `certificate_path`: see
    `certificate_curve`. `lineage`: the fingerprint of every stage. `gates`: the `verdict` and the `reason` of each
    promotion gate of a challenger, by its name.
    """

    result: dict[str, Any]
    frontiers: dict[str, dict[str, list[float]]]
    certificate_path: dict[str, Any]
    machine: str
    trials: list[dict[str, Any]] | None = None
    lineage: dict[str, str] | None = None
    config_yaml: str = ""
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

    `metrics` are those of a bundle (`metrics.json`), empty if it was never evaluated; `certificate` and `policy` as
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
    try:
        with drafted(path) as draft:  # users' data may hold lone surrogates, which UTF-8 cannot
            draft.write_text(page, encoding="utf-8", errors="replace")
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
