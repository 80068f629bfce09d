"""What a notebook does with a loaded cascade."""

import io
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kcm.api.cascade import Cascade
from kcm.api.rows import ANSWERS, inputs_of
from kcm.bundle.answers import Answer, Unreadable
from kcm.bundle.runtime import SmallSide
from kcm.cascade.policy import ESCALATE_ALL, Policy
from kcm.errors import DataError
from kcm.inputs.content import IMAGE, VECTOR, Content
from kcm.large import Item, LargeAnswer
from tests.kcm.bundle.test_runtime import TEXTS, ScriptedModel, StubEncoder, bundle, middle


@pytest.fixture
def cascade() -> Cascade:
    return Cascade(SmallSide(bundle(Policy(decision=middle())), StubEncoder()), ScriptedModel())


def test_list_frame_and_dataset_rows_get_equal_answers(cascade: Cascade) -> None:
    datasets = pytest.importorskip("datasets")
    answers = cascade.predict(TEXTS)
    assert {answer.route for answer in answers} == {"small", "large"}
    frame = cascade.predict(pd.DataFrame({"text": TEXTS}))
    rows = cascade.predict(datasets.Dataset.from_dict({"text": TEXTS}))
    for found in (rows, cascade.predict(map(Content, TEXTS)), cascade.predict(pd.Series(TEXTS))):
        assert [answer.label for answer in found] == [answer.label for answer in answers]
    assert list(frame["label"]) == [answer.label for answer in answers]
    assert list(frame["gate_score"]) == pytest.approx([answer.gate_score for answer in answers])
    assert list(frame["route"]) == [answer.route for answer in answers]


def test_frame_keeps_index_and_columns_unchanged(cascade: Cascade) -> None:
    frame = pd.DataFrame({"review": ["a", None, "b"], "label": [1, 2, 3]}, index=[7, 8, 9])
    before = frame.copy()
    found = cascade.predict(frame, text="review")
    pd.testing.assert_frame_equal(frame, before)
    assert list(found.index) == [7, 8, 9]
    assert list(found.columns) == ["review", "label", "kcm_label", *ANSWERS.names[1:]]
    assert list(found["label"]) == [1, 2, 3]
    assert found["error"].tolist() == [None, "no text", None]
    assert found["kcm_label"].isna().tolist() == [False, True, False]


def test_an_input_that_cannot_be_answered_fails_alone(cascade: Cascade) -> None:
    found = cascade.predict([{"text": "a", "task": "movies"}, {"text": "a", "task": "flims"}, {"text": " "}])
    assert isinstance(found[0], Answer)
    assert found[1:] == [Unreadable("no such task: flims"), Unreadable("no text")]


def test_task_chooses_threshold_and_id_reaches_large_model() -> None:
    large = ScriptedModel()
    policy = Policy(decision=middle(), task_decisions={"movies": ESCALATE_ALL})
    cascade = Cascade(SmallSide(bundle(policy), StubEncoder()), large)
    frame = pd.DataFrame({"text": TEXTS, "task": "movies", "id": range(len(TEXTS))})
    assert set(cascade.predict(frame)["route"]) == {"large"}
    assert [item.id for item in large.asked] == [str(number) for number in range(len(TEXTS))]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("one text", "Give a list of one"),
        ([3], "input 0 is a int"),
        ([{"txt": "a"}], r"no column 'text' \(text\).*Did you mean 'txt'"),
        (pd.DataFrame({"txt": ["a"]}), r"no column 'text' \(text\).*Did you mean 'txt'"),
        ([{"text": 3}], "the text of input 0 is a int"),
    ],
)
def test_what_is_no_input_is_refused(cascade: Cascade, given: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        cascade.predict(given)  # type: ignore[arg-type]


def test_pictures_come_as_bytes_as_paths_and_decoded(tmp_path: Path) -> None:
    picture = Image.new("RGB", (2, 2), "red")
    picture.save(tmp_path / "red.png")
    data = (tmp_path / "red.png").read_bytes()
    rows = [{"image": data}, {"image": str(tmp_path / "red.png")}, {"image": picture}, {"image": {"bytes": data}}]
    found = inputs_of(rows, IMAGE, text="text", image="image", task="task", id="id")
    for each in found:
        assert Image.open(io.BytesIO(each.content.image)).getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(DataError, match="input 0: no image file"):
        inputs_of([{"image": "nowhere.png"}], IMAGE, text="text", image="image", task="task", id="id")


@pytest.mark.parametrize("cell", [1.5, "1.5", np.float32(1.5), [1.5], np.array([1.5])], ids=repr)
def test_a_vector_of_one_number_is_read(cell: object) -> None:
    columns = {"text": "text", "image": "image", "task": "task", "id": "id"}
    (given,) = inputs_of([{"f": cell}], VECTOR, **columns, vector=["f"])
    np.testing.assert_array_equal(given.content.vector, [1.5])
    with pytest.raises(DataError, match="input 0: the vector is not a list of numbers"):
        inputs_of([{"f": date(2026, 1, 1)}], VECTOR, **columns, vector=["f"])


class Slow(ScriptedModel):
    """Counts how many threads are in it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.most = 0, 0

    def answer(self, items: Sequence[Item]) -> list[LargeAnswer]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.02)
        self.inside -= 1
        return super().answer(items)


def test_many_threads_get_the_answers_that_one_gets() -> None:
    large = Slow()
    cascade = Cascade(SmallSide(bundle(Policy(decision=middle())), StubEncoder()), large)
    expected = [answer.label for answer in cascade.predict(TEXTS)]
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: found.append([each.label for each in cascade.predict(TEXTS)])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8
    assert large.most == 1  # a local model is no safer than the encoder


def test_server_model_is_asked_by_all_threads_concurrently() -> None:
    both_are_in = threading.Barrier(2, timeout=60)  # one thread alone would wait here for ever

    class Remote(ScriptedModel):
        def ask(self, item: Item) -> Future[LargeAnswer]:
            raise AssertionError("questions of a batch are answered together")

        def answer(self, items: Sequence[Item]) -> list[LargeAnswer]:
            both_are_in.wait()
            return super().answer(items)

    cascade = Cascade(SmallSide(bundle(Policy(decision=ESCALATE_ALL)), StubEncoder()), Remote())
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(cascade.predict, [["a"], ["b"]]))
    assert [answer.route for (answer,) in found] == ["large", "large"]


def test_an_explanation_shows_words(cascade: Cascade) -> None:
    explained = cascade.explain("<b>one</b> & two")
    assert [word for word, _ in explained.words] == ["<b>one</b>", "&", "two"]
    assert "small says: " in repr(explained)
    with pytest.raises(DataError, match="none is given"):
        cascade.explain(" ")
