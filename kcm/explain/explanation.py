"""An explanation of one decision: effects of words on the judge, and contributions of features to both networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import Input, Judgement
from kcm.explain.networks import network_inputs, networks_with_curves
from kcm.explain.reasons import Reasons, reasons_for

WORDS = 60  # at most, that are left out in turn


@dataclass(frozen=True)
class Explanation:
    """The small side's answer to one input, and reasons by network; none for networks without curves.

    `label` is the small model's answer, `judge_label` the judge's. `words` are the text's words in order, each with the
    amount by which the judge's logit of its answer falls when the word is left out.
    """

    example: Input
    label: str
    judge_label: str
    judgement: Judgement
    reasons: dict[str, Reasons]
    words: tuple[tuple[str, float], ...]

    @property
    def route(self) -> str:
        """The model that answers."""
        return "small" if self.judgement.keeps else "large"

    @property
    def strongest_words(self) -> list[tuple[str, float]]:
        """The words, the largest effects first."""
        return sorted(self.words, key=lambda word: -abs(word[1]))


def words_of(example: Input) -> list[str]:
    """The words that are left out in turn; none for a single word."""
    words = example.content.text.split()
    return words[:WORDS] if len(words) > 1 else []


def variants(example: Input, most: int = WORDS) -> list[Input]:
    """The inputs that the small side judges for an explanation.

    The input itself, then its text without each of its first `most` words.
    """
    words = example.content.text.split()
    left_out = range(min(len(words_of(example)), most))
    return [example, *(_with_text(example, " ".join(words[:i] + words[i + 1 :])) for i in left_out)]


def _with_text(example: Input, text: str) -> Input:
    return replace(example, content=replace(example.content, text=text))


@torch.inference_mode()
def explain(bundle: Bundle, example: Input, judgements: Sequence[Judgement], top: int = 10) -> Explanation:
    """The explanation of `example`, from the judgements of its `variants`; `top` contributions per network.

    Raises DataError for features that are not finite.
    """
    collaborator = bundle.collaborator
    inputs_NI = network_inputs(collaborator, np.stack([judgement.features_D for judgement in judgements]))
    logits_NC = collaborator.judge(inputs_NI)
    judged = int(logits_NC[0].argmax())
    logit_N = logits_NC[:, judged]
    effects = (logit_N[0] - logit_N[1:]).tolist()
    reasons = {
        name: reasons_for(network, inputs_NI[0], int(network(inputs_NI[:1]).argmax()), top)
        for name, network in networks_with_curves(bundle.collaborator).items()
    }
    words = tuple(zip(words_of(example)[: len(effects)], effects, strict=True))
    names, first = bundle.label_names, judgements[0]
    return Explanation(example, names[first.label], names[judged], first, reasons, words)
