"""The report of a run: one HTML file without scripts that needs no network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from kcm.errors import ArtefactError
from kcm.report import sections
from kcm.report.drawing.markup import Html, element
from kcm.report.header import header


@dataclass(frozen=True)
class ReportInputs:
    """Everything the page shows; a metric that was not measured is None and is shown with its reason.

    `result`: the run's result, as in `result.json`; of `kcm` and `mcm` the first is the one that is deployed.
    `frontiers`: per collaborator (`kcm`, `mcm`) the columns `call_rate`, `accuracy` and `threshold`, on test.
    `reliability`: per collaborator, bins with `confidence`, `accuracy` and `count`.
    `trials`: per Tune trial `number`, `collaborator` (`kcm`, `mcm`), `params`, `area`, `calls_saved`, `pareto`.
    `certificate_path`: the columns `threshold`, `p_value`, `regret` and `call_rate` on certify, tested by `regret`.
    `lineage`: the fingerprint of every stage.
    """

    result: dict[str, Any]
    frontiers: dict[str, dict[str, list[float]]]
    reliability: dict[str, list[dict[str, Any]]]
    trials: list[dict[str, Any]]
    certificate_path: dict[str, list[float]]
    config_yaml: str
    lineage: dict[str, str]
    machine: str


def write_report(inputs: ReportInputs, path: Path) -> None:
    """Write the page to `path`, whole or not at all; raises ArtefactError where that is not possible."""
    write_page(render_report(inputs), path)


def write_page(page: str, path: Path) -> None:
    """Write a page to `path`, whole or not at all; raises ArtefactError where that is not possible."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Users' data may hold lone surrogates, which UTF-8 cannot.
        unfinished.write_text(page, encoding="utf-8", errors="replace")
        os.replace(unfinished, path)
    except OSError as error:
        reason = f"the report cannot be written: {error.strerror}"
        raise ArtefactError(reason, where=str(path), mend="Free space or choose another folder") from None


def render_report(inputs: ReportInputs) -> str:
    """The page as HTML; text from data is escaped, and the page's own policy forbids scripts and requests."""
    result = inputs.result
    name = str(result.get("name") or "Unnamed run")
    contents = {
        "Accuracy and cost": sections.outcomes(result, inputs.frontiers),
        "Certificate": sections.certificate(result, inputs.certificate_path),
        "Continual learning": sections.continual(result),
        "Routing and confidence": sections.routing(result, inputs.reliability),
        "Tuning": sections.tuning(result, inputs.trials),
        "Provenance": sections.provenance(result, inputs.lineage, inputs.config_yaml, inputs.machine),
    }
    return document(name, header(result, name), contents, inputs.machine)


def document(name: str, top: Html, contents: Mapping[str, Html], machine: str) -> str:
    """A whole page: `top` is its header, `contents` the sections by title."""
    links = (element("li", element("a", title, href=f"#{_anchor(title)}")) for title in contents)
    body = element(
        "body",
        element("a", "Skip to the results", href=f"#{_anchor(next(iter(contents)))}", class_="skip"),
        top,
        element("nav", element("ul", *links), aria_label="Sections"),
        element("main", *(_section(title, content) for title, content in contents.items())),
        element("footer", f"Written by kcm on {machine}. This file needs no network."),
    )
    return f"<!doctype html>\n{element('html', _head(name), body, lang='en')}\n"


def _head(name: str) -> Html:
    style = files("kcm.report").joinpath("style.css").read_text(encoding="utf-8")
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'"),
        element("title", f"{name} · KCM report"),
        element("style", Html(style)),
    )


def _section(title: str, content: Html) -> Html:
    anchor = _anchor(title)
    heading = element("h2", title, id=f"{anchor}-title")
    return element("section", heading, content, id=anchor, aria_labelledby=f"{anchor}-title")


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
