"""What the figures in a response say of it: sums that come out, sums that do not, figures of the question left unused.

A response that works something out shows how, and a wrong one often shows where. Only plain arithmetic is read, such as
`3 * $4.50 = 13.5`; whatever else stands in a response counts for nothing. Shapes: N rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NUM_CHECKS = 3
_NUMBER = r"\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)%?"
_SUM = re.compile(rf"({_NUMBER}(?:\s*[-+*/x×÷]\s*{_NUMBER})+)\s*=\s*({_NUMBER})")
_PART = re.compile(rf"([-+*/x×÷])\s*({_NUMBER})")
_FIGURE = re.compile(_NUMBER)
_TOLERANCE = 0.01  # relative: responses round


def arithmetic_checks(questions: Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
    """Numbers of sums that come out, of sums that do not, and of unused figures, in logarithms, [N, 3]."""
    found = [
        (*_sums(response), len(_figures(question) - _figures(response)))
        for question, response in zip(questions, responses, strict=True)
    ]
    return np.log1p(np.array(found, dtype=np.float64).reshape(-1, NUM_CHECKS))


def _sums(response: str) -> tuple[int, int]:
    """How many sums come out, and how many do not."""
    right = wrong = 0
    for left, result in _SUM.findall(response):
        stated, value = _value(result), _worked_out(left)
        if value is not None and abs(value - stated) <= _TOLERANCE * max(1.0, abs(stated)):
            right += 1
        else:
            wrong += 1
    return right, wrong


def _worked_out(left: str) -> float | None:
    """The value of a chain of operations, products first; None where it divides by zero."""
    first = _FIGURE.match(left)
    assert first is not None  # a sum begins with a number
    terms = [_value(first[0])]
    for sign, number in _PART.findall(left[first.end() :]):
        value = _value(number)
        if sign in "+-":
            terms.append(value if sign == "+" else -value)
        elif sign in "*x×":
            terms[-1] *= value
        elif value == 0:
            return None
        else:
            terms[-1] /= value
    return sum(terms)


def _value(number: str) -> float:
    value = float(number.strip("$%").replace(",", ""))
    return value / 100 if number.endswith("%") else value


def _figures(text: str) -> set[float]:
    """The figures of a text, whatever their unit."""
    return {float(number.strip("$%").replace(",", "")) for number in _FIGURE.findall(text)}
