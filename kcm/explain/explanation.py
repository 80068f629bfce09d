"""An explanation of one decision: effects of words on the judge, and contributions of features to both networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from kcm.bundle.answers import Input, Judgement, Unreadable
from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import SmallSide
from kcm.errors import DataError
from kcm.explain.gate import GateReading, read_gate
from kcm.explain.networks import base_logits, feature_name, network_inputs, networks_with_curves
from kcm.explain.reasons import Reasons, reasons_for
from kcm.inputs.content import Content

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
        against = f" against a threshold of {judgement.threshold:.2f}" if math.isfinite(judgement.threshold) else ""
        return {
            "small says": f"{self.label} ({self.answer_probability:.3f})",
            "judge says": f"{self.judge_label} ({judgement.judge_confidence:.3f})",
            "gate score": f"{judgement.gate_score:.2f}{against}",
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
    left_out = range(min(len(words_of(example)), max_words))
    return [example, *(_with_text(example, " ".join(words[:i] + words[i + 1 :])) for i in left_out)]


def _with_text(example: Input, text: str) -> Input:
    return replace(example, content=replace(example.content, text=text))


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
    reasons = {
        name: reasons_for(
            network,
            inputs_NI[0],
            int((network(inputs_NI[:1]) + base_NC[:1]).argmax()),
            top,
            base_NC[0],
            partial(feature_name, bundle),
            bundle.label_names,
        )
        for name, network in networks_with_curves(collaborator).items()
    }
    words = tuple(zip(words_of(example)[: len(effects)], effects, strict=True))
    names, first = bundle.label_names, judgements[0]
    gate = read_gate(bundle, first.features_D)
    return Explanation(example, names[first.label], names[judged], first, reasons, words, gate)
