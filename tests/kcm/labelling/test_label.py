"""`kcm.label`: any table, an oracle of any kind, and a promise."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kcm.errors import ArtefactError, ConfigError, DataError
from kcm.labelling.forecaster import Forecast
from kcm.labelling.label import LabelledTable, label
from kcm.labelling.label_list import LabelList
from kcm.labelling.purchases import NoAnswers
from kcm.labelling.rounds import Watcher
from kcm.large import batches
from kcm.large.adapters.openai import openai_config
from tests.fake_upstream import FakeUpstream, Turn, completion
from tests.fake_upstream import label as labelled

WORDS = {"good": "positive", "bad": "negative", "dull": "neutral"}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user folder of the test's own: paid answers, looks and draws."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path


def table(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    words = rng.choice(list(WORDS), rows)
    texts = [
        f"{word} {noun} number {n}"
        for n, (word, noun) in enumerate(zip(words, rng.choice(["film", "play"], rows), strict=True))
    ]
    return pd.DataFrame({"body": texts, "said": [WORDS[word] for word in words]})


def answer(texts: list[str]) -> list[str]:
    return [WORDS[text.split()[0]] for text in texts]


def labelling(frame: pd.DataFrame, **options: Any) -> LabelledTable:
    return label(frame, **{"encoder": "words", "labels": list(WORDS.values()), "llm": answer} | options)


def test_a_table_without_labels_gets_them_for_fewer_calls() -> None:
    frame = table().set_axis(np.arange(600) // 2)  # as of two tables that were joined
    found = labelling(frame)
    assert found.frame["label"].eq(frame["said"]).mean() >= 0.95
    assert found.certificate.certified
    assert found.certificate.bought < 300
    assert set(found.frame["label_source"]) == {"llm", "small"}
    assert found.frame["label_probability"].between(0, 1).all()
    assert list(found.frame.index) == list(frame.index)


def test_equal_texts_are_asked_once() -> None:
    frame = pd.concat([table(200)] * 3, ignore_index=True)
    asked: list[str] = []

    def counting(texts: list[str]) -> list[str]:
        asked.extend(texts)
        return answer(texts)

    found = labelling(frame, llm=counting)
    assert len(asked) == len(set(asked))
    assert found.certificate.texts == 200
    assert found.certificate.rows == 600


def test_recorded_answers_of_rows_never_bought_change_nothing(own_folder: Path) -> None:
    """`answers` plays a column: permuting what was not bought changes neither labels nor certificate."""
    frame = table()
    found = label(frame, answers="said", encoder="words", ledger=own_folder / "one")
    kept = found.frame["label_source"] == "small"
    other = frame.copy()
    other.loc[kept, "said"] = np.random.default_rng(0).permutation(other.loc[kept, "said"])
    again = label(other, answers="said", encoder="words", ledger=own_folder / "other")
    assert (again.frame["label"] == found.frame["label"]).all()
    assert again.certificate == found.certificate


def test_recorded_numbers_with_gaps_are_the_labels_as_written() -> None:
    """A gap makes a column of whole numbers one of 1.0 and 2.0; the labels are still 1 and 2."""
    frame = table(40).assign(said=[None, *(1, 2) * 19, 1])
    assert label(frame, answers="said", encoder="words").labels.names == ("1", "2")
    assert label(frame, labels="1,2", answers="said", encoder="words").certificate.failed == 1


def test_another_seed_is_another_look_and_the_same_job_is_not() -> None:
    frame = table()
    looks = [label(frame, answers="said", encoder="words", seed=seed).certificate for seed in (0, 0, 1)]
    assert [each.look for each in looks] == [1, 1, 2]
    assert looks[2].spend < looks[0].spend


@pytest.mark.parametrize("edit", ["\u200b{}", "{}\u200b", "\x0b{}\ufeff", "{}\U000e0041"])
def test_invisible_edits_make_no_new_table(edit: str) -> None:
    """The question to the LLM is the same, so the ledger counts another look, and delta is shared."""
    frame = table(200)
    label(frame, answers="said", encoder="words", target=0.7)
    edited = frame.assign(body=frame["body"].map(edit.format))
    assert label(edited, answers="said", encoder="words", target=0.7).certificate.look == 2


def test_what_is_cut_from_the_question_makes_no_new_table() -> None:
    frame = table(200).assign(body=lambda frame: frame["body"] + " x" * 2000)
    label(frame, answers="said", encoder="words", target=0.7)
    longer = frame.assign(body=lambda frame: frame["body"] + " and so on")
    assert label(longer, answers="said", encoder="words", target=0.7).certificate.look == 2


def test_price_of_one_look_buys_one_draw(
    upstream: FakeUpstream, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that cannot find the draw of its look takes the next look: in another data folder, or without the file.

    With its draw it is the same look, whatever the cap.
    """
    upstream.otherwise = classify
    config = openai_config("some-model", upstream.base_url, input_price=10.0, output_price=10.0)
    found = []
    for home, cap in [("a", 0.2), ("b", 0.25), ("c", 0.3), ("a", 0.2)]:
        monkeypatch.setenv("XDG_DATA_HOME", str(own_folder / home))
        places = {"store": own_folder / "store", "ledger": own_folder / "ledger"}
        found.append(labelling(table(), llm=config, max_cost=cap, **places).certificate)
    assert [each.look for each in found] == [1, 2, 3, 1]
    assert found[0].spend > found[1].spend > found[2].spend
    assert found[3].draws == found[0].draws


def test_deleted_draw_costs_a_look(own_folder: Path) -> None:
    """The draws for agreement and for labels belong to one look; both are drawn anew if either is gone."""
    options: dict[str, Any] = {"answers": "said", "encoder": "words", "target": 0.7}
    first = label(table(), guarantees=["precision:positive=.7"], **options)
    for number, look in [(3, 2), (1, 3)]:
        (draw,) = (own_folder / "home").rglob(f"draw_{number}.npz")
        draw.unlink()
        again = label(table(), guarantees=["precision:positive=.7"], **options)
        assert again.certificate.look == look
        assert again.certificate.spend < first.certificate.spend
        assert again.certificate.draws != first.certificate.draws


def test_draw_of_another_ledger_is_not_tested_at_this_ones_delta(own_folder: Path) -> None:
    """A ledger in which the job is a later look spends less of delta, so the draw is planned anew."""
    options: dict[str, Any] = {"answers": "said", "encoder": "words"}
    label(table(), ledger=own_folder / "fresh", **options)
    label(table(), ledger=own_folder / "used", seed=1, **options)
    again = label(table(), ledger=own_folder / "used", **options).certificate
    assert again.look == 2
    deltas = {float(np.load(file)["delta"]) for file in (own_folder / "home").rglob("draw_1.npz")}
    assert again.spend in deltas


class Stops(Watcher):
    """Ends a job after its pilot, as `--pilot-only` does, and keeps what it was told."""

    def __init__(self, *, stops: bool = True) -> None:
        self.stops, self.lines = stops, list[str]()

    def said(self, line: str) -> None:
        self.lines.append(line)

    def planned(self, forecast: Forecast, at: Callable[[float], Forecast]) -> None:
        if self.stops:
            raise KeyboardInterrupt


def test_pilot_alone_uses_nothing_of_delta() -> None:
    """Whoever reads the plan may choose another target: only a draw is a look."""
    with pytest.raises(KeyboardInterrupt):
        label(table(), answers="said", encoder="words", target=0.95, watcher=Stops())
    assert label(table(), answers="said", encoder="words", target=0.9).certificate.look == 1


def test_earlier_job_on_these_texts_is_named() -> None:
    watcher = Stops(stops=False)
    label(table(), answers="said", encoder="words", target=0.9)
    label(table(), answers="said", encoder="words", target=0.95, watcher=watcher)
    assert "label, said, target 0.9, seed 0" in watcher.lines[0]
    assert "Look 2" in watcher.lines[0]


def test_failures_of_the_pilot_are_reported() -> None:
    watcher = Stops()
    with pytest.raises(KeyboardInterrupt):
        labelling(
            table(),
            llm=lambda texts: [
                "spam" if "7" in text else name for text, name in zip(texts, answer(texts), strict=True)
            ],
            watcher=watcher,
        )
    assert "have no usable answer, such as: answered 'spam'" in watcher.lines[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["one"]}, "at least two labels"),
        ({"labels": ["one", "One"]}, "occur twice"),
        ({"labels": None}, "no labels"),
        ({"llm": None}, "no LLM given"),
        ({"llm": [answer] * 3}, "3 --llm"),
        ({"answers": "said"}, "1 --llm and 1 --answers"),
        ({"target": 1.5}, "target"),
        ({"text": "nothing"}, "no column 'nothing'"),
        ({"prompt": "Sort this."}, r"must hold \{labels\} exactly once.* \(prompt\)"),
        ({"frame": ["good film"]}, "not a pandas DataFrame but a list"),
        ({"frame": table(50)[:0]}, "no rows"),
        ({"frame": pd.concat([table(50)] * 2, axis=1), "text": "body"}, "2 columns are called 'body'"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        labelling(**{"frame": table(50)} | options)


@pytest.mark.parametrize("rows", [1, 5, 20])
def test_few_rows_are_bought_whole(rows: int) -> None:
    """Without a draw nothing is left to chance: a trial on the first rows leaves all of delta for the whole table."""
    found = labelling(table(rows))
    assert found.certificate.bought == rows
    assert found.certificate.most_differ == 0
    assert (found.certificate.look, found.certificate.spend) == (None, 0)
    assert labelling(table()).certificate.look == 1
    assert found.frame["label"].notna().all()


def test_empty_texts_get_no_label_and_no_promise() -> None:
    frame = table(100)
    frame.loc[3, "body"] = "  "
    found = labelling(frame)
    assert pd.isna(found.frame.loc[3, "label"])
    assert found.certificate.rows == 99


def test_an_oracle_with_one_label_needs_few_calls() -> None:
    found = labelling(table(400), llm=lambda texts: ["positive"] * len(texts))
    assert found.certificate.certified
    assert (found.frame["label"] == "positive").all()


def test_labels_off_the_list_are_failures_of_their_rows() -> None:
    """Rows whose answer is on no list are marked, and count as rows that differ."""
    frame = table(300)

    def sometimes(texts: list[str]) -> list[str | None]:
        return [None if text.endswith("7") else name for text, name in zip(texts, answer(texts), strict=True)]

    found = labelling(frame, llm=sometimes)
    assert found.certificate.failed > 0
    assert (found.frame["label_source"] == "failed").sum() == found.certificate.failed
    assert found.certificate.most_differ >= found.certificate.failed


def test_a_table_with_a_label_column_keeps_it() -> None:
    frame = table(60).assign(label="mine")
    found = labelling(frame)
    assert (found.frame["label"] == "mine").all()
    assert found.column == "kcm_label"


@pytest.mark.parametrize(
    ("name", "content", "names", "descriptions"),
    [
        ("labels.txt", "yes\nno\n", ("yes", "no"), {}),
        ("labels.yaml", "- yes\n- no\n- 01\n", ("yes", "no", "01"), {}),
        ("labels.yaml", "on: wants money back\nother:\nnone: ~\n", ("on", "other", "none"), {"on": "wants money back"}),
        (
            "labels.json",
            json.dumps({"😀": {"description": "first", "examples": ["an a"]}, "b": None}),
            ("😀", "b"),
            {"😀": "first"},
        ),
    ],
)
def test_label_files(
    tmp_path: Path, name: str, content: str, names: tuple[str, ...], descriptions: dict[str, str]
) -> None:
    """Names are as written: YAML would read `yes` and `no` as truth values, and split a letter of JSON in two."""
    (tmp_path / name).write_text(content)
    found = LabelList.of(tmp_path / name)
    assert found.names == names
    assert found.prompt.descriptions == descriptions


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "a\nb\na\n"),
        ("labels.yaml", "a: first\nb:\na: last\n"),
        ("labels.json", '{"a": 1, "b": 2, "a": 3}'),
    ],
)
def test_label_that_a_file_gives_twice_is_refused(tmp_path: Path, name: str, content: str) -> None:
    """A parser would keep the last description without a word."""
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match="occur twice: 'a'"):
        LabelList.of(tmp_path / name)


def classify(body: dict[str, Any]) -> Turn:
    text = body["messages"][1]["content"].split()[1]
    return labelled(WORDS[text])


def server(upstream: FakeUpstream) -> dict[str, Any]:
    upstream.otherwise = classify
    return {"base_url": upstream.base_url, "llm": "some-model"}


def test_a_job_that_dies_goes_on_where_it_was(upstream: FakeUpstream, own_folder: Path) -> None:
    """The server stops answering in the middle: what was paid is kept, the job ends as if it had not.

    A further start pays for nothing.
    """
    frame = table()
    whole = labelling(frame, ledger=own_folder / "other")
    asked: set[str] = set()

    def once(body: dict[str, Any]) -> Turn:
        text = body["messages"][1]["content"]
        assert text not in asked
        asked.add(text)
        if len(asked) == 60:
            return Turn(status=401, body="{}")
        return classify(body)

    options = server(upstream)
    upstream.otherwise = once
    with pytest.raises(ConfigError):
        labelling(frame, **options)
    upstream.otherwise = classify
    found = labelling(frame, **options)
    assert found.certificate.certified
    assert found.certificate.bought == whole.certificate.bought
    paid = len(upstream.requests)
    assert labelling(frame, **options).certificate == found.certificate
    assert len(upstream.requests) == paid


def test_another_store_is_another_look(upstream: FakeUpstream, own_folder: Path) -> None:
    """A model may answer otherwise when it is asked again: the draw must be new, and delta shared."""
    options, frame = server(upstream), table()
    first = labelling(frame, **options)
    other = labelling(frame, store=own_folder / "other", **options)
    again = labelling(frame, store=own_folder / "other", **options)
    assert (first.certificate.look, other.certificate.look) == (1, 2)
    assert other.certificate.spend < first.certificate.spend
    assert again.certificate == other.certificate
    assert (other.result.bought_U != first.result.bought_U).any()


@pytest.mark.parametrize("place", ["ledger", "home"])
def test_nothing_is_paid_if_the_draw_could_not_be_kept(
    upstream: FakeUpstream, own_folder: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (own_folder / "file").write_text("")
    places = {"store": own_folder / "store", "ledger": own_folder / "ledger"}
    if place == "home":
        monkeypatch.setenv("XDG_DATA_HOME", str(own_folder / "file"))
    else:
        places["ledger"] = own_folder / "file" / "ledger"
    with pytest.raises(ArtefactError, match="cannot write here: Not a directory"):
        labelling(table(), **places, **server(upstream))
    assert upstream.requests == []


def test_a_batch_buys_the_draw_and_the_rest(upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """At half the price, once, within the cap; killed while a batch runs, the job goes on with that batch."""
    monkeypatch.setattr(batches, "_PAUSE_S", 0.01)
    words = list(WORDS)

    def hard(body: dict[str, Any]) -> Turn:
        """Labels that the text does not tell."""
        text = body["messages"][1]["content"]
        return labelled(WORDS[words[sum(text.encode()) % 3]])

    upstream.otherwise = hard
    config = openai_config("some-model", upstream.base_url, input_price=10.0, output_price=10.0, batch=True)
    with monkeypatch.context() as kill:
        kill.setattr(batches.Batches, "_ended", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            labelling(table(), llm=config, max_cost=9.0)
    found = labelling(table(), llm=config, max_cost=9.0)
    assert found.certificate.certified
    asked = [text for text in upstream.texts() if "number" in text]
    assert len(asked) == len(set(asked)) == found.certificate.bought
    singly = sum(path.endswith("/chat/completions") for path in upstream.paths)
    in_batches = len(upstream.requests) - singly
    assert in_batches > 0.5 * len(asked)
    assert found.cost == pytest.approx(10.0 * 110 / 1e6 * (singly + in_batches / 2))  # the server counts 110 tokens


def test_a_malformed_reply_is_asked_once_more(upstream: FakeUpstream) -> None:
    upstream.otherwise = classify
    upstream.plan(completion("I think it is rather positive, all in all"))
    found = labelling(table(60), **server(upstream))
    assert found.certificate.failed == 0


def test_a_server_that_is_not_there_is_one_line() -> None:
    config = openai_config("some-model", "http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(NoAnswers, match="does not answer"):
        labelling(table(), llm=config)


def test_refused_key_is_no_answer(upstream: FakeUpstream) -> None:
    options = server(upstream)
    upstream.otherwise = lambda _: Turn(status=401, body="{}")
    with pytest.raises(NoAnswers, match="refuses"):
        labelling(table(), **options)


def test_capped_job_names_the_money_that_is_missing(upstream: FakeUpstream) -> None:
    """A second start with the cap that the first one asks for proves it by a second look; no call is repeated."""
    upstream.otherwise = classify
    config = openai_config("some-model", upstream.base_url, input_price=10.0, output_price=10.0)
    short = labelling(table(), llm=config, max_cost=0.2)
    assert 0 < short.cost <= 0.2  # with calls under way, too
    assert short.frame["label"].notna().all()
    assert short.certificate.promised < 1
    assert short.missing_cost is not None
    enough = labelling(table(), llm=config, max_cost=short.cost + short.missing_cost)
    assert enough.certificate.certified
    assert enough.missing_cost is None
    assert (enough.certificate.look, len(enough.certificate.draws)) == (2, 2)
    assert enough.certificate.spend < 0.2 * enough.certificate.delta
    assert len(upstream.texts()) == len(set(upstream.texts()))


def test_cap_without_a_draw_is_no_look(upstream: FakeUpstream) -> None:
    """A cap that a pilot has used up proves nothing and freezes nothing: with more money the first look follows."""
    upstream.otherwise = classify
    config = openai_config("some-model", upstream.base_url, input_price=10.0, output_price=10.0)
    with pytest.raises(KeyboardInterrupt):
        labelling(table(), llm=config, watcher=Stops())
    short = labelling(table(), llm=config, max_cost=1e-6)
    assert (short.certificate.look, short.certificate.spend, short.certificate.draws) == (None, 0, ())
    assert short.missing_cost is not None
    enough = labelling(table(), llm=config, max_cost=short.cost + short.missing_cost)
    assert enough.certificate.certified
    assert (enough.certificate.look, len(enough.certificate.draws)) == (1, 1)
    assert len(upstream.texts()) == len(set(upstream.texts()))


def test_a_cap_below_one_call_spends_nothing(upstream: FakeUpstream) -> None:
    upstream.otherwise = classify
    config = openai_config("some-model", upstream.base_url, input_price=10.0, output_price=10.0)
    with pytest.raises(NoAnswers, match="budget"):
        labelling(table(), llm=config, max_cost=1e-6)
    assert upstream.requests == []


def test_a_function_that_answers_nothing_ends_after_the_pilot() -> None:
    asked: list[str] = []

    def nothing(texts: list[str]) -> list[None]:
        asked.extend(texts)
        return [None] * len(texts)

    with pytest.raises(NoAnswers, match="no answer"):
        labelling(table(), llm=nothing)
    assert len(asked) == 50


def test_a_cheaper_model_is_asked_if_it_pays() -> None:
    """One that agrees is asked about everything; a coin is asked about the pilot alone."""
    frame = table(1500, seed=3)
    frame["body"] = [f"text {n} of no use" for n in range(len(frame))]
    rng = np.random.default_rng(0)
    frame["good"] = np.where(rng.random(len(frame)) < 0.97, frame["said"], "neutral")
    frame["coin"] = rng.choice(list(WORDS.values()), len(frame))
    helped = label(frame, answers=["good", "said"], encoder="words")
    coin = label(frame, answers=["coin", "said"], encoder="words")
    assert helped.certificate.bought_cheaper == len(frame)
    assert helped.certificate.bought < 0.6 * len(frame)
    assert helped.frame["label"].eq(frame["said"]).mean() >= 0.95
    assert coin.certificate.bought_cheaper < 200
    again = label(frame, answers=["good", "said"], encoder="words")  # finishes the draw that is on disk
    assert (again.frame["label"] == helped.frame["label"]).all()
    assert again.certificate == helped.certificate
    assert again.judge is not None
    assert helped.judge is not None
    assert again.judge.curves.signals == helped.judge.curves.signals  # it reads the cheaper model's answers too
