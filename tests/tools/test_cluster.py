"""Promise: two runs count as equal only if every count is, and every measured number to a millionth."""

import pytest

from tools.cluster import agree

RESULT = {"rows": 194, "parts": [{"accuracy": 0.8, "interval": [0.1, 0.9]}, None, "kcm"]}


def test_sums_in_another_order_are_equal() -> None:
    assert agree(RESULT, {**RESULT, "parts": [{"accuracy": 0.8 + 1e-8, "interval": [0.1, 0.9]}, None, "kcm"]})


@pytest.mark.parametrize(
    "other",
    [
        {**RESULT, "rows": 195},
        {**RESULT, "more": 1},
        {"rows": 194},
        {**RESULT, "parts": RESULT["parts"][:2]},
        {**RESULT, "parts": [{"accuracy": 0.80001, "interval": [0.1, 0.9]}, None, "kcm"]},
        {**RESULT, "parts": [{"accuracy": 0.8, "interval": [0.1, 0.9]}, 0.5, "kcm"]},
        {**RESULT, "parts": [{"accuracy": 0.8, "interval": [0.1, 0.9]}, None, "mcm"]},
    ],
)
def test_anything_else_differs(other: dict[str, object]) -> None:
    assert not agree(RESULT, other)
