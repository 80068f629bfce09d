"""Explanations of a bundle: pictures of its networks and its gate, and the reasons for single decisions.

Pictures need matplotlib (extra `plot`); without it only the reasons are printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from typing import Any

import typer

from jobs.views.explain import explanation_view, rates_view
from jobs.views.table import result_console
from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import load_small_side
from kcm.errors import DataError
from kcm.explain.explanation import explain_with
from kcm.explain.gate import gate_curves, label_rates
from kcm.explain.networks import feature_name, known_rows, with_curves
from kcm.inputs.content import Content, contents
from kcm.kan.inspect import CurveNetwork, plot_network
from kcm.local_files import require_regular, require_writable

PROBE_ROWS = 512  # most probe rows: more would not change which edges matter
PANELS = 4  # curves of the gate side by side


def explain_bundle(
    folder: Path, texts: Sequence[str], images: Sequence[Path], output: Path, top: int, assets_dir: Path
) -> dict[str, Any]:
    """The work of `kcm explain`: draw the networks and the gate, print the reasons, and return the JSON result.

    Raises DataError for unreadable inputs, and for a bundle without rows, from which edges get their importance.
    ConfigError for a bundle of MLPs, ArtefactError for an unusable bundle or encoder.
    """
    examples = inputs(texts, images)
    bundle = Bundle.read(folder)
    if void := bundle.void_on("cpu", "cpu"):
        typer.echo(f"not certified on this runtime: {void}", err=True)
    networks = {name: with_curves(network) for name, network in bundle.collaborator.networks.items()}
    side = load_small_side(bundle, assets_dir)
    explanations = [explain_with(side, example, top) for example in examples]
    pictures = _drawn(bundle, networks, output, top) if find_spec("matplotlib") else []
    for explanation in explanations:
        result_console().print(explanation_view(explanation, bundle.label_names, top))
    labels = label_rates(bundle)
    if labels and not explanations:
        result_console().print(rates_view(labels))
    if pictures:
        typer.echo("\n".join(map(str, pictures)))
    else:
        typer.echo("no pictures: matplotlib is not installed. pip install 'kcm-cascade[plot]'", err=True)
    decisions = [
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
    return {
        "pictures": [str(path) for path in pictures],
        "labels": [asdict(rates) for rates in labels],
        "decisions": decisions,
        "void": void,
    }


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


def _drawn(bundle: Bundle, networks: Mapping[str, CurveNetwork], output: Path, top: int) -> list[Path]:
    """Pictures of the `top` most important edges of every layer, one for each network, and of the gate."""
    rows = known_rows(bundle)
    if rows is None or len(rows) < 2:
        raise DataError(
            "the bundle holds no rows, so the importance of edges is unknown",
            hint="Explain a bundle of `kcm run`, with a learner that has a memory, or with more certify rows",
        )
    require_writable(output, "Name another --output")
    output.mkdir(parents=True, exist_ok=True)
    pictures = []
    for name, network in networks.items():
        features = [feature_name(bundle, feature) for feature in range(network.kan_layers[0].in_features)]
        figure = plot_network(network, rows[:PROBE_ROWS], top, features, bundle.label_names, title=f"the {name}")
        figure.savefig(path := output / f"{name}.png", dpi=130)
        pictures.append(path)
    gate = _gate_drawn(bundle, output / "gate.png")
    return [*pictures, gate] if gate else pictures


def _gate_drawn(bundle: Bundle, path: Path) -> Path | None:
    """A picture of every curve of the gate; None for a gate without curves.

    Ticks on the axis of a rate are the labels.
    """
    from matplotlib.figure import Figure

    curves, labels = gate_curves(bundle), label_rates(bundle)
    if not curves:
        return None
    rates = {
        f"{side} accuracy": [getattr(label, f"{side}_accuracy") for label in labels] for side in ("small", "large")
    }
    rows = -(-len(curves) // PANELS)
    figure = Figure(figsize=(3.2 * PANELS, 2.7 * rows), layout="constrained")
    axes = figure.subplots(rows, PANELS, squeeze=False, sharey=True)
    for curve, ax in zip(curves, axes.flat, strict=False):
        ax.plot(curve.points, curve.added, color="#0b63ce", lw=2)
        ax.axhline(0, color="#9aa4b1", lw=0.8)
        for rate in rates.get(curve.signal.name, ()):
            ax.axvline(rate, ymax=0.06, color="#24292f", alpha=0.4, lw=1)
        ax.set_title(curve.signal.name, fontsize=10)
        ax.set_xlabel(fill(curve.signal.meaning, 34), fontsize=8)
    for ax in axes.flat[len(curves) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("added to the gate score")
    figure.savefig(path, dpi=130)
    return path
