"""The label in a generative model's reply, and its probability."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic_core import from_json  # bounds how deep a text nests, where json would exhaust the stack

KEY = "label"  # of the object that a structured answer is


def answer_schema(label_names: Sequence[str]) -> dict[str, object]:
    """The `response_format` of an answer that can be nothing but one of the labels."""
    schema = {
        "type": "object",
        "properties": {KEY: {"type": "string", "enum": list(label_names)}},
        "required": [KEY],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def reply_label(content: str) -> str:
    """The text of the label: the field of a structured answer, else the whole reply."""
    stripped = content.strip()
    try:
        value = from_json(stripped)
    except ValueError:
        return stripped.strip("\"'`*.").strip()
    text = value.get(KEY) if isinstance(value, dict) else value
    return text if isinstance(text, str) else stripped


def matching_label(text: str, label_names: Sequence[str]) -> int | None:
    """The label that equals `text`, ignoring case where that leaves one; None for anything else."""
    if text in label_names:
        return label_names.index(text)
    alike = [number for number, name in enumerate(label_names) if name.casefold() == text.casefold()]
    return alike[0] if len(alike) == 1 else None


def reply_probability(content: str, logprobs: Sequence[tuple[str, float]], text: str) -> float | None:
    """Probability of the tokens that spell `text` within `content`; None where they do not spell it.

    llama.cpp drops the marks of a code block from `content` and keeps them among the tokens: these may be more.
    """
    written = "".join(token for token, _ in logprobs)
    begin, within = written.find(content), content.rfind(text)
    if min(begin, within) < 0 or not text:
        return None
    start = begin + within
    total, position = 0.0, 0
    for token, logprob in logprobs:
        begins, position = position, position + len(token)
        if begins < start + len(text) and position > start:
            total += logprob
    return math.exp(min(total, 0.0)) if math.isfinite(total) else None


def label_distribution(label: int, probability: float, allowed: Sequence[int], num_labels: int) -> np.ndarray:
    """Probabilities, float32 [C]: `probability` for `label`, the rest evenly over the other labels allowed.

    The label never gets less than an even share: the model preferred it.
    """
    probabilities_C = np.zeros(num_labels, dtype=np.float32)
    top = max(probability, 1 / len(allowed))
    probabilities_C[list(allowed)] = (1 - top) / max(len(allowed) - 1, 1)
    probabilities_C[label] = top
    probabilities_C /= probabilities_C.sum()
    return probabilities_C
