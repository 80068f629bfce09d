"""Tables as people have them, and what their columns are."""

import numpy as np
import pandas as pd
import pytest

from kcm.tasks.readers.guess import guess_columns, number_columns, tells_label

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


def test_best_agreeing_answers_are_the_large_model() -> None:
    columns = {"zero": [0] * N, "one": [0, 1] * (N // 2), "weak": [0, 1, 2, 1] * (N // 4), "good": [0, 1, 2] * (N // 3)}
    frame = pd.DataFrame({"text": TEXTS, "label": [0, 1, 2] * (N // 3)} | columns)
    frame.loc[:5, "good"] = 0
    assert guess_columns(frame).large == "good"
    assert guess_columns(frame.drop(columns="good")).large is None


@pytest.mark.parametrize(
    ("columns", "used", "reasons"),
    [
        ({"x_1": [0.5], "x_2": [2]}, ("x_1", "x_2"), {}),
        (
            {"x_1": ["0.5"], "y[1]": ["2"], "name": ["two"]},
            ("x_1", "y[1]"),
            {"name": "all cells are no finite numbers, such as 'two'"},
        ),
        ({"x": [1.0], "v": [np.ones(3)]}, ("v",), {"x": "'v' holds the vector"}),
        ({"name": ["two"]}, (), {"name": "all cells are no finite numbers, such as 'two'"}),
    ],
)
def test_number_columns_make_a_vector_except_others(
    columns: dict[str, list[object]], used: tuple[str, ...], reasons: dict[str, str]
) -> None:
    assert number_columns(pd.DataFrame({"id": [1]} | columns), ["id", None]) == (used, reasons)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["1,234.5", " -1,000,000 ", "7"] * 20, ""),
        (["1.5"] * 58 + ["inf", ""], ""),
        (["1.5"] * 50 + ["inf"] * 10, "10 of 60 cells are no finite numbers, such as 'inf'"),
        ([float("inf")] * 60, "all cells are no finite numbers, such as 'inf'"),
        ([f"0.{n} kg" for n in range(60)], "all cells are no finite numbers, such as '0.0 kg'"),
        (["1,23"] * 60, "all cells are no finite numbers, such as '1,23'"),
        (["1", ""] * 30, "30 of 60 cells are empty"),
        ([pd.Timestamp("2026-01-02")] * 60, "all cells are no finite numbers, such as '2026-01-02 00:00:00'"),
    ],
)
def test_column_that_is_not_used_has_a_reason(cells: list[object], reason: str) -> None:
    """Separators of thousands are numbers. Few gaps cost rows, many gaps cost the column, with a reason."""
    used, reasons = number_columns(pd.DataFrame({"f": pd.Series(cells), "g": [1.0] * 60}), [])
    assert (used, reasons) == ((("f", "g"), {}) if not reason else (("g",), {"f": reason}))


@pytest.mark.parametrize("quantity", ["0.{} kg", "{} fl oz", "$ {}.50 each", "2026-01-02 10:{}"])
def test_quantities_are_no_text(quantity: str) -> None:
    """A column of numbers with units does not become the text of a table without texts."""
    frame = pd.DataFrame({"weight": [quantity.format(10 + n) for n in range(N)], "label": LABELS, "f": range(N)})
    assert guess_columns(frame).text is None
    assert guess_columns(frame.assign(note=TEXTS)).text == "note"


@pytest.mark.parametrize(
    ("answers", "labels"),
    [
        ([1, 2, 0], ["1", "2", "0"]),
        ([1.0, 2.0, None], ["1", "2", "0"]),
        ([1.0, 2.0, 0.0], [1, 2, 0]),
        ([1.5, 2.5, 0.0], ["1.5", "2.5", "0"]),
        ([True, False, True], ["True", "False", "False"]),
        ([True, False, True], [True, False, False]),
    ],
)
def test_answers_of_any_type_are_recognised(answers: list[object], labels: list[object]) -> None:
    """Whole numbers, fractions and booleans are answers if they are written as the labels are."""
    frame = pd.DataFrame({"text": TEXTS, "label": labels * (N // 3), "large": answers * (N // 3)})
    frame.loc[:8, "large"] = answers[0]
    assert guess_columns(frame).large == "large"


@pytest.mark.parametrize(
    ("cells", "tells"),
    [
        ([0, 1, 2] * 20, True),
        ([number % 3 + number / 1000 for number in range(60)], True),
        ([number % 3 + number / 40 for number in range(60)], False),
        (list(range(60)), False),
        ([0, 1, 1] * 20, False),
        ([float("nan")] * 60, False),
    ],
)
def test_number_that_tells_the_label_is_found(cells: list[float], tells: bool) -> None:
    """A code of the label, or numbers in one interval for each label; numbers that merely differ tell nothing."""
    assert tells_label(pd.Series(cells), pd.Series(LABELS)) is tells


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
