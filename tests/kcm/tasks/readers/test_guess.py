"""Tables as people have them, and what their columns are."""

import numpy as np
import pandas as pd
import pytest

from kcm.tasks.readers.guess import guess_columns, vector_patterns

N = 60
TEXTS = [f"please help me with thing {number}" for number in range(N)]
LABELS = ["refund", "card", "other"] * (N // 3)
ANSWERS = [*LABELS[1:16], *LABELS[15:]]  # a quarter of them wrong


def test_names_tell() -> None:
    frame = pd.DataFrame(
        {
            "id": range(N),
            "Text": TEXTS,
            "Label": LABELS,
            "domain": ["a", "b"] * (N // 2),
            "user": [f"u{number // 2}" for number in range(N)],
            "split": ["train", "dev", "test"] * (N // 3),
            "gpt": ANSWERS,
        }
    )
    found = guess_columns(frame)
    assert vars(found) == {
        "text": "Text",
        "image": None,
        "label": "Label",
        "id": "id",
        "group": "user",
        "task": "domain",
        "split": "split",
        "large": "gpt",
        "cost": None,
        "vector": (),
    }


def test_contents_tell_where_names_do_not() -> None:
    frame = pd.DataFrame({"n": np.arange(N) * 1.5, "what they wrote": TEXTS, "verdict": LABELS, "mark": TEXTS[::-1]})
    found = guess_columns(frame.assign(mark=[f"m{number}" for number in range(N)]))
    assert (found.text, found.label, found.id, found.large) == ("what they wrote", "verdict", None, None)


def test_answers_agree_with_the_label_beyond_chance_and_those_that_agree_most_are_the_large_models() -> None:
    columns = {"zero": [0] * N, "one": [0, 1] * (N // 2), "weak": [0, 1, 2, 1] * (N // 4), "good": [0, 1, 2] * (N // 3)}
    frame = pd.DataFrame({"text": TEXTS, "label": [0, 1, 2] * (N // 3)} | columns)
    frame.loc[:5, "good"] = 0
    assert guess_columns(frame).large == "good"
    assert guess_columns(frame.drop(columns="good")).large is None


@pytest.mark.parametrize(
    ("columns", "patterns"),
    [
        ({"x_1": [0.5], "x_2": [2]}, ("x*",)),
        ({"x_1": ["0.5"], "y[1]": ["2"], "name": ["two"]}, ("x_1", "y[[]1]")),
        ({"x": [1.0], "v": [np.ones(3)]}, ("v",)),
        ({"name": ["two"]}, ()),
    ],
)
def test_columns_of_numbers_make_a_vector_but_for_those_that_are_something_else(
    columns: dict[str, list[object]], patterns: tuple[str, ...]
) -> None:
    assert vector_patterns(pd.DataFrame({"id": [1]} | columns), ["id", None]) == patterns


@pytest.mark.parametrize("cells", [[b"png"] * N, [f"{number}.PNG" for number in range(N)]])
def test_pictures_are_found(cells: list[object]) -> None:
    found = guess_columns(pd.DataFrame({"what": cells, "class": LABELS}))
    assert (found.image, found.label, found.text) == ("what", "class", None)


def test_what_is_known_is_not_guessed() -> None:
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS, "intent": ANSWERS})
    assert guess_columns(frame, label="intent").label == "intent"
    assert guess_columns(frame, label="intent").large == "label"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("gpt_cost", "small_cost"), "gpt_cost"),
        (("small_cost", "GPT USD"), "GPT USD"),
        (("large_cost",), "large_cost"),
        (("cost",), "cost"),
        (("small_cost",), None),
        (("gpt_words",), None),
        ((), None),
    ],
)
def test_what_the_answers_cost_is_found_by_its_name(columns: tuple[str, ...], expected: str | None) -> None:
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS, "gpt_answer": ANSWERS})
    found = guess_columns(frame.assign(**dict.fromkeys(columns, ["0.1", ""] * (N // 2))))
    assert (found.large, found.cost) == ("gpt_answer", expected)
