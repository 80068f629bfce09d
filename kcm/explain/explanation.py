"""An explanation of one decision: effects of words on the judge, and the largest contributions to both networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from kcm.bundle.answers import Input, Judgement, Unreadable
from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import SmallSide
from kcm.errors import DataError
from kcm.explain.gate import GateReading, read_gate
from kcm.explain.networks import base_logits, feature_name, network_inputs, networks_with_curves
from kcm.inputs.content import Content
from kcm.kan.inspect import CurveNetwork, attribution, edge_curve, first_changes


@dataclass(frozen=True)
class Contribution:
    """The contribution of one input to a logit, through all its curves.

    The input, called `name`, is an encoder feature or a projection of all features. `feature` is its number, and
    `value` its value after the normaliser. `through` is the output of the first layer that carried most of the
    contribution, and `carried` is that part; in a one-layer network `through` is the label itself and carries
    everything. The logit counts this edge's value `slope` times. The edge leads to `to`, a label or a hidden node; at
    `points` it would add `curve` to the logit. Without `word`, one of the text's, the contribution would change most.
    """

    feature: int
    value: float
    contribution: float
    through: int
    carried: float
    slope: float
    name: str
    to: str = ""
    points: tuple[float, ...] = ()
    curve: tuple[float, ...] = ()
    word: str = ""


@dataclass(frozen=True)
class Reasons:
    """The contributions to the logit of `label`, called `label_name`, largest first.

    `rest` is the sum of the `num_others` contributions that are not listed; in absolute values they are `unlisted` of
    all contributions, a share.

    `baseline` is the logit of the reference input; in a one-layer network, the constant outside its curves, which is
    zero for splines. `base` is the part of the class means, which no curve shows. Hence the logit is baseline + base +
    sum of contributions + rest. `exact` says whether each share is exact, as in a one-layer network, or DeepLIFT's
    approximation (see `kcm.kan.inspect`).
    """

    label: int
    logit: float
    baseline: float
    base: float
    contributions: tuple[Contribution, ...]
    rest: float
    exact: bool
    label_name: str = ""
    num_others: int = 0
    unlisted: float = 0.0


def reasons_for(
    network: CurveNetwork,
    x_I: Tensor,
    label: int,
    top: int = 10,
    base_C: Tensor | None = None,
    name: Callable[[int], str] = "feature {}".format,
    label_names: Sequence[str] = (),
    without: Mapping[str, Tensor] | None = None,
) -> Reasons:
    """The `top` largest contributions, by size, to the logit of `label` for the scaled input `x_I` [I].

    `base_C` are the logits that the network adds to, `name` returns the name of a curve's input by its number,
    `label_names` are the names of the labels, and `without` holds the scaled inputs [I] without each word.

    Raises DataError for an input of another width.
    """
    shares = attribution(network, x_I.unsqueeze(0))
    share_I, slope_H = shares.contributions[0, label], shares.slopes[0, label]
    by_edge_HI = slope_H.unsqueeze(1) * first_changes(network, x_I.unsqueeze(0))[0]
    through_I = by_edge_HI.abs().argmax(0)
    value_I = network.curve_inputs(x_I)
    inputs = share_I.abs().argsort(descending=True, stable=True)[:top].tolist()
    names, exact = label_names or [str(number) for number in range(network.widths[-1])], len(network.kan_layers) == 1
    words, word_I = list(without or ()), torch.zeros(len(share_I), dtype=torch.long)
    if without:
        share_WI = attribution(network, torch.stack(list(without.values()))).contributions[:, label]
        word_I = (share_I - share_WI).abs().argmax(0)
    contributions = []
    for i, h in zip(inputs, through_I[inputs].tolist(), strict=True):
        figures = float(value_I[i]), float(share_I[i]), h, float(by_edge_HI[h, i]), float(slope_H[h])
        word = words[int(word_I[i])] if words else ""
        edge = Contribution(i, *figures, name(i), to=names[h] if exact else f"hidden node {h}", word=word)
        points, curve = (column.tolist() for column in contribution_curve(network, edge))
        rounded_points, rounded_curve = tuple(round(x, 4) for x in points), tuple(round(y, 5) for y in curve)
        contributions.append(replace(edge, points=rounded_points, curve=rounded_curve))
    total, baseline = float(share_I.sum()), float(shares.baseline[label])
    remainder = total - sum(part.contribution for part in contributions)
    all_sizes = float(share_I.abs().sum())
    unlisted = 1 - float(share_I[inputs].abs().sum()) / all_sizes if all_sizes else 0.0
    base = 0.0 if base_C is None else float(base_C[label])
    logit = baseline + base + total
    num_others = len(share_I) - len(inputs)
    return Reasons(
        label, logit, baseline, base, tuple(contributions), remainder, exact, names[label], num_others, unlisted
    )


@torch.no_grad()
def contribution_curve(
    network: CurveNetwork, contribution: Contribution, num_points: int = 101
) -> tuple[Tensor, Tensor]:
    """What the edge behind a contribution would add to the logit for other values of its input: points, values [P].

    The points span the curve and the input's own value. In a deeper network the curve is zero at the reference, and the
    layers after the first are replaced by a straight line, as in the attribution.
    """
    first = network.kan_layers[0]
    low, high = min(first.span[0], contribution.value), max(first.span[1], contribution.value)
    points_P, added_P = edge_curve(
        first, contribution.feature, contribution.through, torch.linspace(low, high, num_points)
    )
    if len(network.kan_layers) > 1:
        _, reference_1 = edge_curve(first, contribution.feature, contribution.through, torch.zeros(1))
        added_P = added_P - reference_1
    return points_P, contribution.slope * added_P


WORDS = 60  # the most words that are left out in turn
_SHOWN_WORDS = 5


@dataclass(frozen=True)
class Explanation:
    """The small side's answer to one input, and reasons by network; none for networks without curves.

    `label` is the small model's answer, `judge_label` the judge's. `words` are the text's words in order, each with the
    amount by which the judge's logit of its answer falls if the word is left out. `gate` are the parts of the gate
    score, for a gate that consists of curves.
    """

    example: Input
    label: str
    judge_label: str
    judgement: Judgement
    reasons: dict[str, Reasons]
    words: tuple[tuple[str, float], ...]
    gate: GateReading | None = None

    @property
    def route(self) -> str:
        """The model that answers."""
        return "small" if self.judgement.keeps else "large"

    @property
    def answer_probability(self) -> float:
        """The small model's probability of its label."""
        return float(self.judgement.probabilities_C[self.judgement.label])

    @property
    def strongest_words(self) -> list[tuple[str, float]]:
        """The words, the largest effects first."""
        return sorted(self.words, key=lambda word: -abs(word[1]))

    def __repr__(self) -> str:
        """The decision in one line, and the words with the strongest effects."""
        words = ", ".join(f"{word} {effect:+.2f}" for word, effect in self.strongest_words[:_SHOWN_WORDS])
        return f"<Explanation {', '.join(f'{name}: {fact}' for name, fact in self._facts().items())}; words: {words}>"

    def _facts(self) -> dict[str, str]:
        judgement = self.judgement
        return {
            "small says": f"{self.label} ({self.answer_probability:.3f})",
            "judge says": f"{self.judge_label} ({judgement.judge_confidence:.3f})",
            "gate score": f"{judgement.gate_score:.2f}{judgement.against}",
            "who answers": self.route,
        }


def words_of(example: Input) -> list[str]:
    """The words that are left out in turn; none for a single word."""
    words = example.content.text.split()
    return words[:WORDS] if len(words) > 1 else []


def variants(example: Input, max_words: int = WORDS) -> list[Input]:
    """The inputs that the small side judges for an explanation.

    The input itself, then its text without each of its first `max_words` words.
    """
    words = example.content.text.split()
    texts = (" ".join(words[:i] + words[i + 1 :]) for i in range(min(len(words_of(example)), max_words)))
    return [example, *(replace(example, content=replace(example.content, text=text)) for text in texts)]


def explain_with(side: SmallSide, content: Content, top: int = 10) -> Explanation:
    """The explanation of one content; `top` contributions per network.

    Raises DataError for a content that cannot be read, or that lacks a part the bundle reads.
    """
    if lacking := content.lacks(side.bundle.reads):
        raise DataError(f"the bundle reads {lacking}, and none is given", where="input")
    example = Input(content)
    judgements: list[Judgement] = []
    for answer in side.judge(variants(example)):
        if isinstance(answer, Unreadable):
            raise DataError(answer.reason, where="input")
        judgements.append(answer)
    return explain(side.bundle, example, judgements, top)


@torch.inference_mode()
def explain(bundle: Bundle, example: Input, judgements: Sequence[Judgement], top: int = 10) -> Explanation:
    """The explanation of `example`, from the judgements of its `variants`; `top` contributions per network.

    Raises DataError for features that are not finite.
    """
    collaborator = bundle.collaborator
    features_ND = np.stack([judgement.features_D for judgement in judgements])
    inputs_NI, base_NC = network_inputs(collaborator, features_ND), base_logits(collaborator, features_ND)
    logits_NC = collaborator.judge(inputs_NI) + base_NC
    judged = int(logits_NC[0].argmax())
    logit_N = logits_NC[:, judged]
    effects = (logit_N[0] - logit_N[1:]).tolist()
    left_out = words_of(example)[: len(effects)]
    without = dict(zip(left_out, inputs_NI[1:], strict=True))
    reasons = {
        name: reasons_for(
            network,
            inputs_NI[0],
            int((network(inputs_NI[:1]) + base_NC[:1]).argmax()),
            top,
            base_NC[0],
            partial(feature_name, bundle),
            bundle.label_names,
            without,
        )
        for name, network in networks_with_curves(collaborator).items()
    }
    words = tuple(zip(left_out, effects, strict=True))
    names, first = bundle.label_names, judgements[0]
    gate = read_gate(bundle, first.features_D)
    return Explanation(example, names[first.label], names[judged], first, reasons, words, gate)
