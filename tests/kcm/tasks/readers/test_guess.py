"""Tables as people have them, and what their columns are."""

import numpy as np
import pandas as pd
import pytest

from kcm.tasks.readers.guess import guess_columns, number_columns

N = 60
TEXTS = [f"please help me with thing {number}" for number in range(N)]
LABELS = ["refund", "card", "other"] * (N // 3)


def test_names_tell() -> None:
    frame = pd.DataFrame(
        {
            "id": range(N),
            "Text": TEXTS,
            "Label": LABELS,
            "domain": ["a", "b"] * (N // 2),
            "user": [f"u{number // 2}" for number in range(N)],
            "split": ["train", "dev", "test"] * (N // 3),
        }
    )
    found = {role: column for role, column in vars(guess_columns(frame)).items() if column}
    roles = {"text": "Text", "label": "Label", "id": "id", "group": "user", "task": "domain", "split": "split"}
    assert found == roles


def test_contents_tell_where_names_do_not() -> None:
    frame = pd.DataFrame({"n": np.arange(N) * 1.5, "what they wrote": TEXTS, "verdict": LABELS})
    found = guess_columns(frame.assign(mark=[f"m{number}" for number in range(N)]))
    assert (found.text, found.label, found.id) == ("what they wrote", "verdict", None)


@pytest.mark.parametrize("quantity", ["0.{} kg", "{} fl oz", "$ {}.50 each", "2026-01-02 10:{}"])
def test_quantities_are_no_text(quantity: str) -> None:
    """A column of numbers with units does not become the text of a table without texts."""
    frame = pd.DataFrame({"weight": [quantity.format(10 + n) for n in range(N)], "label": LABELS, "f": range(N)})
    assert guess_columns(frame).text is None
    assert guess_columns(frame.assign(note=TEXTS)).text == "note"


@pytest.mark.parametrize("cells", [[b"png"] * N, [f"{number}.PNG" for number in range(N)]])
def test_pictures_are_found(cells: list[object]) -> None:
    found = guess_columns(pd.DataFrame({"what": cells, "class": LABELS}))
    assert (found.image, found.label, found.text) == ("what", "class", None)


def test_what_is_known_is_not_guessed() -> None:
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS, "intent": LABELS, "domain": ["a", "b"] * (N // 2)})
    found = guess_columns(frame, {"label": "intent", "task": None})
    assert (found.label, found.task) == ("intent", None)


@pytest.mark.parametrize(
    ("columns", "used"),
    [
        ({"x_1": [0.5], "x_2": [2]}, ("x_1", "x_2")),
        ({"x_1": ["0.5"], "y[1]": ["2"], "name": ["two"]}, ("x_1", "y[1]")),
        ({"x": [1.0], "v": [np.ones(3)]}, ("v",)),
        ({"name": ["two"]}, ()),
        ({"x": ["1,234.5", " -1,000,000 "]}, ("x",)),
        ({"x": ["1.5"] * 58 + ["inf", ""]}, ("x",)),
        ({"x": ["1.5"] * 50 + ["inf"] * 10, "day": [pd.Timestamp("2026-01-02")] * 60}, ()),
    ],
)
def test_number_columns_make_a_vector_except_others(columns: dict[str, list[object]], used: tuple[str, ...]) -> None:
    """Promise: separators of thousands are numbers; few gaps cost rows, many gaps cost the column."""
    assert number_columns(pd.DataFrame({"id": 1} | columns), ["id", None]) == used
