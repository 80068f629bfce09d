"""Why one input was decided as it was, as clients receive it. Unlike other answers it repeats the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from kcm.bundle.answers import Input, Judgement
from kcm.bundle.bundle import Bundle
from kcm.bundle.models import large_names
from kcm.bundle.runtime import SmallSide
from kcm.explain.explanation import explain
from kcm.explain.gate import GateReading
from kcm.explain.networks import networks_with_curves
from kcm.explain.places import heat_map
from kcm.explain.reasons import Contribution, contribution_curve
from kcm.kan.inspect.curves import CurveNetwork
from kcm.large.prompting.shown import Shown

NO_CURVES = "The networks of this model are MLPs, which have no edge functions to show."


class Word(BaseModel):
    """A word of the text, in its place."""

    word: str
    effect: Annotated[float, Field(description="How much lower the judge's logit of its answer is without the word.")]


class Edge(BaseModel):
    """What a feature, or a projection of all, adds to a logit, and the function on the edge that carried most of it."""

    name: Annotated[str, Field(description="A feature of the encoder by number or place, or a projection of all.")]
    value: Annotated[float, Field(description="What the network sees of it.")]
    contribution: Annotated[float, Field(description="By all edges that start there.")]
    to: Annotated[str, Field(description="Where the edge leads: a label, or a node of the first hidden layer.")]
    points: Annotated[list[float], Field(description="Values that it could have.")]
    curve: Annotated[list[float], Field(description="What the edge would add to the logit at these.")]
    carried: Annotated[float, Field(description="What it adds at `value`.")]


class Reasons(BaseModel):
    """What the logit of a network's own answer is made of: baseline, base, contributions and the rest add up to it."""

    network: Literal["judge", "small"]
    label: str
    logit: float
    baseline: float
    base: Annotated[float, Field(description="What class means add, which no curve shows; 0 without a base.")]
    rest: Annotated[float, Field(description="All contributions that are not listed.")]
    exact: Annotated[bool, Field(description="Whether shares are exact, or DeepLIFT's approximation.")]
    edges: Annotated[list[Edge], Field(description="The largest contributions, by size.")]


class Signal(BaseModel):
    """A number that the gate reads, and its curve whole."""

    name: str
    meaning: str
    value: float
    contribution: Annotated[float, Field(description="What it adds to the gate score.")]
    points: list[float]
    curve: Annotated[list[float], Field(description="What the signal would add at these.")]


class LabelRates(BaseModel):
    """How often both models are right on validate rows where the small one gives a label: what the gate reads of it."""

    label: str
    small_accuracy: float
    large_accuracy: float
    added: Annotated[float, Field(description="What both add to the gate score.")]


class Gate(BaseModel):
    """What the gate score is made of: the constant and all contributions add up to it."""

    score: float
    constant: Annotated[float, Field(description="The score of an average row.")]
    signals: list[Signal]
    labels: Annotated[
        list[LabelRates], Field(description="Of all labels, those first whose answers escalate most easily.")
    ]


class Explanation(BaseModel):
    """How the small side came to its decision, and what the large model is shown of the input."""

    model_version: str
    request_id: str
    label: Annotated[str, Field(description="The small model's answer.")]
    judge_label: Annotated[str, Field(description="The judge's answer, which the words speak for or against.")]
    judge_confidence: Annotated[float, Field(description="The judge's probability of its own label.")]
    answer_probability: Annotated[float, Field(description="The small model's probability of its answer.")]
    escalated: bool
    words: Annotated[list[Word], Field(description="The first words of the text, in their order.")]
    cells: Annotated[
        list[list[float]] | None,
        Field(description="What the parts of a picture add to the judge's logit of its answer, by rows, if known."),
    ]
    networks: list[Reasons]
    no_curves: Annotated[str | None, Field(description="Why there are no networks to show, where there are none.")]
    gate: Annotated[Gate | None, Field(description="For a gate that is made of curves.")]
    shown: Annotated[
        Shown, Field(description="The question to the large model: as it is sent where the input is escalated.")
    ]


def explanation(
    side: SmallSide, given: Input, judgements: Sequence[Judgement], top: int, *, version: str, request_id: str
) -> Explanation:
    """The explanation of `given` from the judgements of its variants, with `top` edges per network."""
    bundle = side.bundle
    found = explain(bundle, given, judgements, top)
    networks = networks_with_curves(bundle.collaborator)
    cells = heat_map(bundle, found.judgement.features_D)
    return Explanation(
        model_version=version,
        request_id=request_id,
        label=found.label,
        judge_label=found.judge_label,
        judge_confidence=found.judgement.judge_confidence,
        answer_probability=found.answer_probability,
        escalated=not found.judgement.keeps,
        words=[Word(word=word, effect=effect) for word, effect in found.words],
        cells=None if cells is None else [[round(cell, 4) for cell in row] for row in cells.tolist()],
        networks=[
            Reasons(
                network=name,
                label=bundle.label_names[reason.label],
                logit=reason.logit,
                baseline=reason.baseline,
                base=reason.base,
                rest=reason.rest,
                exact=reason.exact,
                edges=[_edge(networks[name], each, bundle) for each in reason.contributions],
            )
            for name, reason in found.reasons.items()
        ],
        no_curves=None if networks else NO_CURVES,
        gate=found.gate and _gate(found.gate),
        shown=bundle.large.shown(large_names(bundle), side.question(given, found.judgement)),
    )


def _gate(reading: GateReading) -> Gate:
    return Gate(
        score=reading.score,
        constant=reading.constant,
        signals=[
            Signal(
                name=curve.signal.name,
                meaning=curve.signal.meaning,
                value=value,
                contribution=added,
                points=[round(point, 4) for point in curve.points],
                curve=[round(each, 5) for each in curve.added],
            )
            for curve, value, added in zip(reading.curves, reading.values, reading.contributions, strict=True)
        ],
        labels=[LabelRates(**asdict(each)) for each in reading.labels],
    )


def _edge(network: CurveNetwork, each: Contribution, bundle: Bundle) -> Edge:
    points_P, curve_P = contribution_curve(network, each)
    return Edge(
        name=each.name,
        value=each.value,
        contribution=each.contribution,
        to=bundle.label_names[each.through] if len(network.kan_layers) == 1 else f"hidden node {each.through}",
        points=[round(point, 4) for point in points_P.tolist()],
        curve=[round(value, 5) for value in curve_P.tolist()],
        carried=each.carried,
    )
