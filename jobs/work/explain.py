"""Explanations of a bundle: pictures of its networks, and the reasons for single decisions.

Pictures need matplotlib (extra `plot`); without it only the reasons are printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import torch
import typer

from jobs.assets import provide_models
from jobs.views.explain import explanation_view, rates_view
from jobs.views.table import result_console
from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import SmallSide, load_small_side
from kcm.durable import require_writable
from kcm.errors import DataError
from kcm.explain.explanation import Explanation, explain_with
from kcm.explain.gate import GateReading, LabelRates, gate_curves, label_rates
from kcm.explain.networks import feature_name, known_rows, network_inputs, with_curves
from kcm.inputs.content import Content, contents
from kcm.kan.inspect import plot_edge, plot_network
from kcm.regular_files import require_regular
from pipelines.progress import Reporter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROBE_ROWS = 512  # most probe rows: more would not change which edges matter
PANELS = 4  # edges drawn per network for one decision, and curves of the gate side by side


class Explainer:
    """A bundle opened for explanation; `probe_ND` are its scaled rows, from which edges get their importance.

    Raises ConfigError for a bundle of MLPs, DataError for one without rows, ArtefactError for an unusable bundle or
    encoder. `void` says why the bundle's certificate does not hold in this process; None if it holds or does not exist.
    """

    def __init__(self, folder: Path, assets_dir: Path) -> None:
        self.bundle = Bundle.read(folder)
        self.void = self.bundle.void_on("cpu", "cpu")
        self.networks = {name: with_curves(network) for name, network in self.bundle.collaborator.networks.items()}
        self.side: SmallSide = load_small_side(self.bundle, assets_dir)
        rows = known_rows(self.bundle)
        if rows is None or len(rows) < 2:
            raise DataError(
                "the bundle holds no rows, so the importance of edges is unknown",
                where=str(folder),
                hint="Explain a bundle of `kcm run`, with a learner that has a memory, or with more certify rows",
            )
        self.probe_ND = rows[:PROBE_ROWS]

    def networks_on_a_page(self, output: Path, top: int) -> list[Path]:
        """Draw the `top` most important edges of every layer: one picture per network."""
        width = next(iter(self.networks.values())).kan_layers[0].in_features
        features = [feature_name(self.bundle, feature) for feature in range(width)]
        figures = {
            name: plot_network(network, self.probe_ND, top, features, self.bundle.label_names, title=f"the {name}")
            for name, network in self.networks.items()
        }
        return [_saved(figure, output / f"{name}.png") for name, figure in figures.items()]

    def explain(self, content: Content, top: int) -> Explanation:
        """Judge one input, and find the `top` largest contributions to the logit of each network's own answer.

        Raises DataError for an unreadable input, and for an input without a part that the bundle reads.
        """
        return explain_with(self.side, content, top)

    def draw(self, explanation: Explanation, path: Path) -> Path:
        """Draw the curves behind the largest contributions, each with this input's position on it.

        All curves that lead directly to the logit have one scale, so a steeper curve counts for more.
        """
        figure = _figure(figsize=(3.2 * PANELS, 2.7 * len(self.networks)), layout="constrained")
        exact = all(reason.exact for reason in explanation.reasons.values())
        axes = figure.subplots(len(self.networks), PANELS, squeeze=False, sharey="row" if exact else "none")
        own_1D = network_inputs(self.bundle.collaborator, explanation.judgement.features_D[None])
        rows_ND = torch.cat([self.probe_ND, own_1D])  # extend the curve to the input itself
        for (name, reason), row in zip(explanation.reasons.items(), axes, strict=True):
            layer, seen_NI = self.networks[name].kan_layers[0], self.networks[name].curve_inputs(rows_ND)
            for contribution, ax in zip(reason.contributions, row, strict=False):
                plot_edge(layer, contribution.feature, contribution.through, seen_NI, ax=ax)
                ax.axvline(contribution.value, color="#d9480f", lw=1.2)
                ax.set_title(f"{name}: {contribution.contribution:+.2f}", fontsize=10)
                end = (
                    self.bundle.label_names[contribution.through] if reason.exact else f"hidden {contribution.through}"
                )
                ax.set(xlabel=contribution.name, ylabel=f"to {end}")
        return _saved(figure, path)

    def draw_gate(self, path: Path, reading: GateReading | None = None) -> Path | None:
        """Draw every curve of the gate, with an input's position on it; None for a gate without curves.

        Ticks on the axis of a rate are the labels.
        """
        curves, labels = gate_curves(self.bundle), label_rates(self.bundle)
        if not curves:
            return None
        rates = {
            f"{side} accuracy": [getattr(label, f"{side}_accuracy") for label in labels] for side in ("small", "large")
        }
        rows = -(-len(curves) // PANELS)
        figure = _figure(figsize=(3.2 * PANELS, 2.7 * rows), layout="constrained")
        axes = figure.subplots(rows, PANELS, squeeze=False, sharey=True)
        for number, ax in enumerate(axes.flat):
            if number >= len(curves):
                ax.set_visible(False)
                continue
            curve = curves[number]
            ax.plot(curve.points, curve.added, color="#0b63ce", lw=2)
            ax.axhline(0, color="#9aa4b1", lw=0.8)
            for rate in rates.get(curve.signal.name, ()):
                ax.axvline(rate, ymax=0.06, color="#24292f", alpha=0.4, lw=1)
            ax.set_title(curve.signal.name, fontsize=10)
            ax.set_xlabel(fill(curve.signal.meaning, 34), fontsize=8)
            if reading is not None:
                ax.plot(reading.values[number], reading.contributions[number], "o", color="#d9480f")
                ax.set_title(f"{curve.signal.name}: {reading.contributions[number]:+.2f}", fontsize=10)
        for ax in axes[:, 0]:
            ax.set_ylabel("added to the gate score")
        return _saved(figure, path)


def inputs(texts: Sequence[str], images: Sequence[Path]) -> list[Content]:
    """The inputs to explain: texts, pictures, or pairs of them in order. Raises DataError."""
    if texts and images and len(texts) != len(images):
        raise DataError(f"{len(texts)} texts and {len(images)} pictures make no pairs", where="--input and --image")
    for path in images:
        require_regular(path)
    try:
        pictures = [path.read_bytes() for path in images]
    except OSError as error:
        raise DataError(f"no such picture: {error.strerror}", where=str(error.filename)) from None
    return contents(texts or [""] * len(pictures), pictures or None)


def write_explanations(
    explainer: Explainer, examples: Sequence[Content], output: Path, top: int
) -> tuple[dict[str, Any], list[Explanation]]:
    """Write all pictures to `output`; returns the result as plain values, and the explanation of each input.

    Without matplotlib there are no pictures.
    """
    explanations = [explainer.explain(content, top) for content in examples]
    pictures = _drawn(explainer, explanations, output, top) if find_spec("matplotlib") else []
    records = [
        {
            "label": explanation.label,
            "route": explanation.route,
            "judge_label": explanation.judge_label,
            "judge_confidence": explanation.judgement.judge_confidence,
            "answer_probability": explanation.answer_probability,
            "words": [{"word": word, "effect": effect} for word, effect in explanation.strongest_words[:top]],
            "reasons": {name: asdict(reason) for name, reason in explanation.reasons.items()},
            "gate": explanation.gate and asdict(explanation.gate),
        }
        for explanation in explanations
    ]
    labels = [asdict(rates) for rates in label_rates(explainer.bundle)]
    return {"pictures": [str(path) for path in pictures], "labels": labels, "decisions": records}, explanations


def explain_bundle(
    folder: Path, texts: Sequence[str], images: Sequence[Path], output: Path, top: int, assets_dir: Path
) -> dict[str, Any]:
    """The work of `kcm explain`: write pictures, print the reasons, and return the JSON result."""
    provide_models(folder, assets_dir, Reporter())
    explainer = Explainer(folder, assets_dir)
    pictures, explanations = write_explanations(explainer, inputs(texts, images), output, top)
    result = pictures | {"void": explainer.void}
    if explainer.void:
        typer.echo(f"the certificate is void here: {explainer.void}", err=True)
    for explanation in explanations:
        result_console().print(explanation_view(explanation, explainer.bundle.label_names, top))
    if not explanations and (labels := [LabelRates(**entry) for entry in result.get("labels", ())]):
        result_console().print(*rates_view(labels), sep="\n")
    if result["pictures"]:
        typer.echo("\n".join(result["pictures"]))
    else:
        typer.echo("no pictures: matplotlib is not installed. pip install 'kcm-cascade[plot]'", err=True)
    return result


def _drawn(explainer: Explainer, explanations: Sequence[Explanation], output: Path, top: int) -> list[Path]:
    """The pictures of the networks, of the gate and of each decision."""
    require_writable(output, "Name another --output")
    output.mkdir(parents=True, exist_ok=True)
    pictures = explainer.networks_on_a_page(output, top)
    if gate := explainer.draw_gate(output / "gate.png"):
        pictures.append(gate)
    for number, explanation in enumerate(explanations, 1):
        pictures.append(explainer.draw(explanation, output / f"decision-{number}.png"))
        if explanation.gate is not None and (
            gate := explainer.draw_gate(output / f"gate-{number}.png", explanation.gate)
        ):
            pictures.append(gate)
    return pictures


def _figure(**options: Any) -> Figure:
    from matplotlib.figure import Figure

    return Figure(**options)


def _saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=130)
    return path
