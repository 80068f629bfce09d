"""How the arithmetic of a response holds together: one that miscalculates, or that does not answer what it has
calculated, is seldom right.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise

_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_LAST_CHAIN = re.compile(rf"{_NUMBER}(?:\s*[-+*/]\s*{_NUMBER})+\s*$")
_RESULT = re.compile(rf"\s*({_NUMBER})")
_TERM = re.compile(r"([-+]?)([^-+]+)")
_FACTOR = re.compile(rf"([*/]?)\s*({_NUMBER})")
_TIMES = re.compile(r"(?<=\d)\s*[x×]\s*(?=\d)")
_SIGNS = str.maketrans({"÷": "/", "−": "-"} | dict.fromkeys("$€£¥%", ""))
_LONGEST = 200  # letters before an equals sign that are read: a chain of a whole text would take its length squared
_ROUNDED = 0.01  # share by which a result may be rounded


def arithmetic(text: str) -> tuple[int, int, bool, bool]:
    """The equations of a text (12 / 4 * $3 = $9), and how many of them are wrong; of its last number whether it is
    whole, and whether it is what the last equation gives.
    """
    parts = _TIMES.sub("*", text.translate(_SIGNS)).split("=")
    equations = [
        (value_of(chain[0]), _number(result[1]))
        for left, right in pairwise(parts)
        if (chain := _LAST_CHAIN.search(left[-_LONGEST:])) and (result := _RESULT.match(right))
    ]
    wrong = sum(not abs(value - said) <= _ROUNDED * max(1, said) for value, said in equations)
    numbers = re.findall(_NUMBER, text)
    last = _number(numbers[-1]) if numbers else math.nan
    is_given = bool(equations) and math.isclose(last, equations[-1][1])
    return len(equations), wrong, last.is_integer(), is_given


def value_of(chain: str) -> float:
    """The value of numbers with + - * / between them, products first; infinite where zero divides."""
    total = 0.0
    for sign, term in _TERM.findall(chain):
        product = 1.0
        for operation, digits in _FACTOR.findall(term):
            number = _number(digits)
            product *= number if operation != "/" else 1 / number if number else math.inf
        total += -product if sign == "-" else product
    return total


def _number(digits: str) -> float:
    return float(digits.replace(",", ""))
