"""The arithmetic of a response is read as people write it, and checked against Python's own."""

import random

import pytest

from kcm.routing.routers.arithmetic import arithmetic, value_of


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("She has 16 - 3 = 13 eggs, and sells 9 * $2 = $18.", (2, 0, True, True)),
        ("5 x 3 = <<5*3=15>>15 and 12÷4×1,000 = 3,000", (2, 0, True, True)),
        ("16 - 3 = 12. So it is 12.5", (1, 1, False, False)),
        ("20 / 3 = 6.67", (1, 0, False, True)),
        ("7 / 0 = 1", (1, 1, True, True)),
        ("2 + 3 = 5 = 6", (1, 0, True, False)),  # the second sign has no sum before it
        ("x = 3 and no sum", (0, 0, True, False)),
        ("", (0, 0, False, False)),
    ],
)
def test_equations_are_found_and_checked(text: str, found: tuple[int, int, bool, bool]) -> None:
    assert arithmetic(text) == found


def test_a_chain_has_the_value_that_python_gives() -> None:
    draws = random.Random(0)
    for _ in range(300):
        numbers = [str(draws.randint(1, 99)) for _ in range(draws.randint(2, 6))]
        chain = numbers[0] + "".join(f" {draws.choice('+-*/')} {number}" for number in numbers[1:])
        assert value_of(chain) == pytest.approx(eval(chain))


@pytest.mark.parametrize("text", ["1+" * 10**6, "1=" * 10**6, "9" * 10**6, "1 " * 10**6])
def test_a_text_of_megabytes_is_read_in_one_pass(text: str) -> None:
    """Promise: a text that a stranger wrote costs its length, not its length squared, which would take hours."""
    assert arithmetic(text)[0] == 0
