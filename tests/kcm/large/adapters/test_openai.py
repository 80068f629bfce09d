"""The line to a server of chat completions, against a real one that is scripted request by request."""

import gzip
import json
import math
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from kcm.errors import ArtefactError, ConfigError
from kcm.inputs.content import Content
from kcm.large import Item, LargeAnswer
from kcm.large.adapters.openai import OpenAiConfig, OpenAiModel, openai_identity
from kcm.large.response_cache import ResponseCache, ResponseStore
from tests.fake_upstream import Turn, completion, label

LABELS = ("negative", "positive", "late delivery")
KEY = "sk-this-is-the-key"
WAIT = Future.result


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def model(upstream, tmp_path):
    """Makes models that share a file of paid answers, do not wait long, and try three times."""

    def make(limit_s: float = math.inf, **changes: Any) -> OpenAiModel:
        settings = {"timeout_s": 60.0, "max_retries": 2, "max_wait_s": 0.05, "num_concurrent": 1} | changes
        config = OpenAiConfig(**{"base_url": upstream.base_url, "model": "big"} | settings)
        return OpenAiModel(config, LABELS, ResponseStore.in_file(tmp_path / "paid.sqlite"), limit_s)

    return make


def items(*texts: str) -> list[Item]:
    return [Item(str(number), Content(text)) for number, text in enumerate(texts)]


def logprobs(*tokens: tuple[str, float]) -> dict[str, Any]:
    return {"logprobs": {"content": [{"token": text, "logprob": math.log(p)} for text, p in tokens]}}


# -- what is asked, and what becomes of the answer ---------------------------------------------------------------------


def test_a_question_is_asked_as_promised(model, upstream):
    """Promise: instructions and data in messages of their own, one label as JSON, sure answers, the key as bearer."""
    model().answer([Item("1", Content("a film"))])
    (body,) = upstream.requests
    assert upstream.paths == ["/v1/chat/completions"]
    system, user = body["messages"]
    assert (system["role"], user) == ("system", {"role": "user", "content": "<<<\na film\n>>>"})
    assert "negative, positive, late delivery" in system["content"]
    assert body["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"] == list(LABELS)
    assert (body["model"], body["temperature"], body["logprobs"]) == ("big", 0, True)
    assert upstream.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"label": "late delivery"}', 2),
        (' {"label":"positive"}\n', 1),
        ("Positive.", 1),
        ('```json\n{"label": "late delivery"}\n```', 2),
        ('{"category": "late delivery"}', 2),
        ("Label: late delivery", 2),
        ("**Category:** `positive`.", 1),
        ('{"category": "late delivery", "other": "positive"}', None),
        ("Label: positive or negative", None),
        ("Not: positive", None),
        ("posit", None),
        ('{"label": 1}', None),
        ('{"label": "positive"', None),
        pytest.param('{"label":' * 20_000, None, id="deep objects"),
        (None, None),
    ],
)
def test_an_answer_is_one_of_the_labels_or_off_label(model, upstream, content, expected):
    """Promise: a label is matched strictly; any other answer is off-label, paid for, and not asked again."""
    upstream.plan(completion(content))
    (answer,) = model().answer(items("x"))
    assert answer.label == expected
    assert answer.off_label == (expected is None)
    assert answer.cost.tokens == 110
    if expected is None:
        assert "not on the label list" in answer.error
    model().answer(items("x"))
    assert len(upstream.requests) == 1


LATE = (('{"label": "', 0.5), ("late", 0.8), (" delivery", 0.9), ('"}', 0.3))
FENCED = (("```", 0.1), ("json\n", 0.2), *LATE, ("\n```", 0.9))


@pytest.mark.parametrize("tokens", [logprobs(*LATE), logprobs(*FENCED)], ids=["plain", "in a code block"])
def test_logprobs_become_probabilities(model, upstream, tokens):
    """Promise: a label is as probable as the tokens that spell it, and the others share the rest.

    Tokens around the content, such as ```json of llama.cpp, cost no probability.
    """
    upstream.plan(label("late delivery", choice={"message": {"content": '{"label": "late delivery"}'}, **tokens}))
    (answer,) = model().answer(items("x"))
    np.testing.assert_allclose(answer.probabilities, [0.14, 0.14, 0.72], rtol=1e-6)
    assert answer.label == 2


@pytest.mark.parametrize(
    "choice",
    [{}, {"logprobs": None}, {"logprobs": {"content": []}}, logprobs(("something", 0.5), ("else", 0.5))],
    ids=["missing", "null", "empty", "of another text"],
)
def test_without_logprobs_there_is_a_label_and_no_probabilities(model, upstream, choice):
    """Promise: a server that gives no log-probabilities, or useless ones, still gives its label."""
    upstream.plan(label("positive", choice={"message": {"content": '{"label": "positive"}'}, **choice}))
    (answer,) = model().answer(items("x"))
    assert (answer.label, answer.probabilities, answer.error) == (1, None, None)


FASTAPI = {"detail": "Unexpected fields in the request: {'response_format'}"}  # as `transformers serve` says it
RENAMED = {"error": {"message": "Use 'max_completion_tokens', not 'max_tokens'."}}


@pytest.mark.parametrize(
    ("status", "refusal", "parameter"),
    [
        *((400, {"error": {"message": f"Unsupported: {name}"}}, name) for name in ("logprobs", "temperature")),
        (422, FASTAPI, "response_format"),
        (400, RENAMED, "max_tokens"),
    ],
    ids=["logprobs", "temperature", "response_format", "max_tokens"],
)
def test_a_parameter_that_the_server_does_not_know_is_left_out(model, upstream, status, refusal, parameter):
    """Promise: any compatible server will do; what it does not know is left out or renamed, for all questions."""
    upstream.plan(Turn(status, json.dumps(refusal)))
    answers = model().answer(items("one", "two"))
    assert [answer.label for answer in answers] == [1, 1]
    assert [parameter in body for body in upstream.requests] == [True, False, False]
    limits = {body.get("max_tokens") or body["max_completion_tokens"] for body in upstream.requests}
    assert len(limits) == 1


def test_text_repeated_in_a_refusal_is_not_shown_or_obeyed(model, upstream):
    """Promise: FastAPI repeats what it refuses; a text in it gets into no message, and switches no parameter off."""
    fault = {"type": "dict_type", "loc": ["body"], "msg": "Input should be a valid dictionary", "input": "no logprobs!"}
    upstream.plan(Turn(422, json.dumps({"detail": [fault]})))
    refused, fine = model().answer(items("no logprobs!", "y"))
    assert refused.error == "status 422: body: Input should be a valid dictionary"
    assert fine.label == 1
    assert all("logprobs" in body for body in upstream.requests)


# -- trouble -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [{"error": {"message": "pinned to 'small'"}}, {"error": "pinned to 'small'"}, {"detail": "pinned to 'small'"}],
    ids=["of OpenAI", "as text", "of FastAPI"],
)
def test_a_refusal_is_told_in_the_server_s_words(model, upstream, body):
    """Promise: the reason is one sentence, whichever field the server puts it into; the request is not sent again."""
    upstream.plan(Turn(400, json.dumps(body)))
    (answer,) = model().answer(items("x"))
    assert (answer.label, answer.error, answer.outage) == (None, "status 400: pinned to 'small'", False)
    assert len(upstream.requests) == 1


def test_retry_after_is_honoured(model, upstream):
    """Promise: a server that asks for a pause gets it."""
    upstream.plan(Turn(429, "slow down", {"Retry-After": "1"}))
    (answer,) = model(max_wait_s=5).answer(items("x"))
    assert answer.label == 1
    first, second = upstream.times
    assert second >= first + 0.95


def test_a_pause_longer_than_allowed_is_not_waited_for(model, upstream):
    """Promise: a server cannot hold a run up for an hour."""
    upstream.plan(Turn(429, "quota", {"Retry-After": "3600"}))
    (answer,) = model().answer(items("x"))
    assert answer.error == "status 429: quota; it asks to wait 3600 s, longer than max_wait_s"
    assert len(upstream.requests) == 1


HUGE = {"content": [{"token": "", "logprob": 10**400}]}


@pytest.mark.parametrize(
    "trouble",
    [
        *({"status": status, "body": "trouble"} for status in (408, 429, 529)),
        {"body": "<html>gateway</html>"},
        {"body": '{"choices": []}'},
        {"body": '{"choices": [{"message": "?"}]}'},
        {"body": b"\xff\xfe\x00"},
        {"body": '{"choices": [{"message": {"content": "positive"}}]}', "cut_after": 10},
        {"body": "[" * 100_000},
        {"body": json.dumps({"choices": [{"message": {"content": ""}, "logprobs": HUGE}]})},
    ],
    ids=lambda trouble: str(trouble)[:40],
)
def test_passing_server_fault_costs_an_attempt_not_an_answer(model, upstream, trouble):
    """Promise: a server in trouble is asked again; so is one whose reply is cut off or is no chat completion."""
    upstream.plan(Turn(**trouble), Turn(**trouble))
    (answer,) = model().answer(items("x"))
    assert (answer.label, len(upstream.requests)) == (1, 3)


@pytest.mark.parametrize(
    "stall",
    [{"stall_after": 10}, {"delay_s": 60.0}, {"drip_s": 0.1}],
    ids=["in the middle", "at the start", "byte by byte"],
)
def test_a_stalled_reply_is_given_up_in_time(model, upstream, stall):
    """Promise: a server that goes silent holds nobody up."""
    upstream.plan(Turn(200, "x" * 100, **stall))
    (answer,) = model(timeout_s=5.0).answer(items("x"))
    assert (answer.label, len(upstream.requests)) == (1, 2)
    upstream.plan(*[Turn(200, "x" * 100, **stall)] * 3)
    (answer,) = model(timeout_s=0.5).answer(items("y"))
    assert answer.error == "no whole reply within 0.5 s"


def test_retries_and_pauses_end_with_the_time_of_a_question(model, upstream):
    """Promise: whoever waits for an answer no longer has nothing asked on their behalf."""
    patient = {"timeout_s": 60.0, "max_retries": 50, "max_wait_s": 60.0}
    upstream.plan(Turn(503, "later", {"Retry-After": "30"}))
    (answer,) = model(limit_s=6.0, **patient).answer(items("x"))
    assert (answer.error, answer.outage, len(upstream.requests)) == ("status 503: later", True, 1)
    upstream.plan(Turn(200, delay_s=30.0))
    (answer,) = model(limit_s=6.0, **patient).answer(items("y"))  # long enough to reach a busy machine's server
    assert answer.error.startswith("no whole reply within ")
    assert len(upstream.requests) == 2


LARGE = completion("x" * 20_000_000).body.encode()
PACKED = gzip.compress(LARGE)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Turn(200, PACKED, {"Content-Encoding": "gzip"}), "the reply is compressed ('gzip'), which was not asked for"),
        (Turn(200, LARGE), "the reply is longer than 1048576 bytes"),
        (Turn(400, LARGE), "the reply is longer than 1048576 bytes"),
    ],
    ids=["compressed", "huge", "a huge refusal"],
)
def test_no_reply_fills_the_memory(model, upstream, reply, error):
    """Promise: a reply is not unpacked, nor read to its end where it has none; it is an error and not asked again."""
    upstream.plan(reply)
    bad, fine = model().answer(items("x", "y"))
    assert bad.error == error
    assert (fine.label, len(upstream.requests)) == (1, 2)
    assert upstream.headers[0]["accept-encoding"] == "identity"


def test_outage_differs_from_a_useless_answer(model, upstream):
    """Promise: only a server that is not there, in trouble or silent counts as one that fails."""
    upstream.plan(label("lukewarm"), Turn(400, "content filter"))
    assert [answer.outage for answer in model(max_calls=2).answer(items("x", "y", "z", " "))] == [False] * 4
    upstream.plan(Turn(503), Turn(429, "", {"Retry-After": "900"}), Turn(200, "broken"), Turn(200, delay_s=30.0))
    hasty = model(max_retries=0, timeout_s=0.3)
    assert [answer.outage for answer in hasty.answer(items(*"abcd"))] == [True] * 4


def test_an_empty_text_is_not_asked(model, upstream):
    """Promise: nothing is paid for a question about nothing."""
    empty, fine = model().answer(items(" \n", "x"))
    assert (empty.error, fine.label, len(upstream.requests)) == ("the text is empty", 1, 1)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_stops_the_work(model, upstream, status):
    """Promise: an error that affects every item is raised at once, and the key is never repeated."""
    upstream.plan(Turn(status, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})))
    with pytest.raises(ConfigError, match="the server refuses") as raised:
        model().answer(items("x"))
    assert KEY not in str(raised.value)
    assert "***" in str(raised.value)


def test_a_server_that_is_not_there_is_an_error_of_the_items(tmp_path):
    """Promise: no server, no exception: every item says so."""
    config = OpenAiConfig(base_url="http://127.0.0.1:9/v1", model="big", max_retries=1, max_wait_s=0.01)
    first, second = OpenAiModel(config, LABELS).answer(items("x", "y"))
    assert first.error == second.error == "the server cannot be reached: ConnectError"


# -- money -------------------------------------------------------------------------------------------------------------

PRICES = {"input_price": 10_000.0, "output_price": 100_000.0}  # 100 tokens read and 10 written are 1 + 1


def test_nothing_is_paid_twice(model, upstream):
    """Promise: a question once answered is never asked again, by whichever process, and costs what it cost."""
    first = model(**PRICES).answer(items("x", "y", "x"))
    assert len(upstream.requests) == 2
    again = model(**PRICES).answer(items("y", "x"))
    assert len(upstream.requests) == 2
    assert [(a.label, a.cost) for a in again] == [(first[1].label, first[1].cost), (first[0].label, first[0].cost)]


def test_whatever_decides_the_answer_is_another_question(model, upstream):
    """Promise: another text or cut is asked anew."""
    model().answer([Item("1", Content("x"))])
    model().answer([Item("1", Content("z"))])
    model(max_chars=1).answer([Item("1", Content("x and more"))])
    assert len(upstream.requests) == 2  # the last text is cut to the first one


def test_threads_that_ask_the_same_question_share_its_answer(model, upstream):
    """Promise: a question under way is not asked a second time."""
    upstream.plan(label("negative"))
    upstream.script[0].delay_s = 0.3
    shared, found = model(num_concurrent=4), []
    threads = [threading.Thread(target=lambda: found.extend(shared.answer(items("x")))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.label for answer in found] == [0] * 4
    assert len(upstream.requests) == 1


@pytest.fixture
def gate(upstream):
    """Events: the first request has arrived; requests are answered."""
    started, go_on = threading.Event(), threading.Event()

    def answer(_):
        started.set()
        assert go_on.wait(60)
        return label("positive")

    upstream.otherwise = answer
    return started, go_on


def test_processes_that_ask_the_same_question_share_its_answer(model, upstream, gate):
    """Promise: a question that one process has sent is not paid by another one, which waits for the answer."""
    started, go_on = gate
    one, other = model(num_concurrent=2), model(num_concurrent=2)
    asked = [one.ask(item) for item in items("a", "b")]
    assert started.wait(60)
    asked += [other.ask(item) for item in items("b", "a", "c")]
    go_on.set()
    assert [future.result(60).label for future in asked] == [1] * 5
    assert sorted(upstream.texts()) == ["a", "b", "c"]
    assert one.spent()[0] == 3


def test_question_that_failed_elsewhere_is_asked(model, upstream):
    """Promise: a call without an answer lets others ask."""
    upstream.plan(Turn(400, "{}"))
    (refused,) = model().answer(items("a"))
    assert refused.label is None
    assert [answer.label for answer in model().answer(items("a"))] == [1]


def test_a_question_that_nobody_waits_for_is_not_sent(model, upstream, gate):
    """Promise: who leaves before the question is sent pays for nothing; who asked the same still gets the answer."""
    started, go_on = gate
    asking = model(timeout_s=60.0)
    first, left, shared, stays = [asking.ask(item) for item in items("a", "b", "c", "c")]
    assert started.wait(60)
    assert (left.cancel(), shared.cancel()) == (True, True)
    go_on.set()
    assert (first.result(60).label, stays.result(60).label) == (1, 1)
    assert upstream.texts() == ["a", "c"]


def test_abandoned_question_is_read_to_its_end_and_kept(model, upstream, gate):
    """Promise: it may have been charged when its asker left, so whoever asks it again is answered by the same call."""
    started, go_on = gate
    asking = model(timeout_s=60.0)
    left = asking.ask(*items("a"))
    assert started.wait(60)
    assert left.cancel()
    go_on.set()
    assert [answer.label for answer in asking.answer(items("a"))] == [1]
    assert upstream.texts() == ["a"]


def test_no_more_questions_are_under_way_than_allowed(model, upstream):
    """Promise: the limit of concurrent questions is used, and never passed."""

    together = threading.Barrier(3)

    def answer(_):
        together.wait(60)  # nobody is answered before three have asked
        return label("positive")

    upstream.otherwise = answer
    model(num_concurrent=3).answer(items(*map(str, range(12))))
    assert upstream.busiest == 3


def test_max_calls_is_kept_and_what_is_paid_is_kept(model, upstream):
    """Promise: the budget stops the work cleanly, item by item; more budget goes on where it stopped."""
    answers = model(max_calls=3).answer(items(*"abcde"))
    assert [answer.label for answer in answers] == [1, 1, 1, None, None]
    assert {answer.error for answer in answers[3:]} == {"the budget is spent: max_calls = 3"}
    assert len(upstream.requests) == 3
    answers = model(max_calls=5).answer(items(*"abcde"))
    assert [answer.label for answer in answers] == [1] * 5
    assert len(upstream.requests) == 5


def most_of(body: dict[str, Any]) -> float:
    """The most that a question can cost at `PRICES`: a token for each of its bytes, 64 more, and all it may write."""
    num_read = len(json.dumps(body, ensure_ascii=False).encode()) + 64
    return (num_read * PRICES["input_price"] + body["max_tokens"] * PRICES["output_price"]) / 1e6


def test_max_cost_is_never_passed(model, upstream, tmp_path):
    """Promise: a call that could pass the budget at its worst is not made, in this run or the next."""
    dear = model(max_cost=40.0, **PRICES)
    answers = dear.answer(items(*map(str, range(40))))
    worst = most_of(upstream.requests[0])
    assert 2 < worst < 38
    paid = sum(answer.cost.currency for answer in answers)
    assert 40 - worst - 2 <= paid <= 40
    assert "the budget is spent: max_cost = 40" in answers[-1].error
    asked = len(upstream.requests)
    assert model(max_cost=40.0, **PRICES).answer(items("new"))[0].label is None
    assert len(upstream.requests) == asked


def test_a_call_that_may_have_been_charged_counts(model, upstream, tmp_path):
    """Promise: a reply that broke off is booked at the most it can have cost; a refusal costs nothing."""
    upstream.plan(Turn(503, "busy"), Turn(200, "broken"))
    model(**PRICES).answer(items("x"))
    account = ResponseCache(ResponseStore.in_file(tmp_path / "paid.sqlite"), upstream.base_url)
    assert account.spent() == (2, pytest.approx(2.0 + most_of(upstream.requests[0])))


def test_a_question_without_time_left_costs_nothing(model, upstream):
    """Promise: what is not sent is not booked."""
    late = model(limit_s=0.0, **PRICES)
    (answer,) = late.answer(items("x"))
    assert (answer.error, answer.outage) == ("no time is left for a reply", True)
    assert (upstream.requests, late.spent()) == ([], (0, 0.0))


@pytest.mark.parametrize(
    "usage", [None, dict.fromkeys(("prompt_tokens", "completion_tokens"), 10**4000)], ids=["none", "absurd"]
)
def test_unknown_token_counts_are_booked_at_the_most(model, upstream, usage):
    """Promise: a budget holds even if the server does not say what it used, or says what no float holds."""
    upstream.plan(label("positive", usage=usage))
    (answer,) = model(**PRICES).answer(items("x"))
    assert answer.label == 1
    assert answer.cost.currency == pytest.approx(most_of(upstream.requests[0]))


@pytest.mark.slow
def test_a_killed_run_pays_nothing_twice_but_the_calls_under_way(upstream, tmp_path):
    """Promise: an answer is committed as it comes; killed at any time, the next run asks only what is left."""
    script = (
        "import sys; from pathlib import Path; from kcm.inputs.content import Content; from kcm.large import Item\n"
        "from kcm.large.adapters.openai import OpenAiConfig, OpenAiModel\n"
        "from kcm.large.response_cache import ResponseStore\n"
        "config = OpenAiConfig(base_url=sys.argv[1], model='big', num_concurrent=1)\n"
        f"model = OpenAiModel(config, {LABELS!r}, ResponseStore.in_file(Path(sys.argv[2])))\n"
        "model.answer([Item(str(n), Content(f'text {n}')) for n in range(6)])"
    )
    responses, hanging = tmp_path / "paid.sqlite", threading.Event()

    def answer(body):
        reply = label("positive")
        if len(upstream.requests) == 4:
            reply.delay_s = 60.0
            hanging.set()
        return reply

    upstream.otherwise = answer
    killed = subprocess.Popen([sys.executable, "-c", script, upstream.base_url, str(responses)], env=dict(os.environ))
    assert hanging.wait(240)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    config = OpenAiConfig(base_url=upstream.base_url, model="big", num_concurrent=1)
    answers = OpenAiModel(config, LABELS, ResponseStore.in_file(responses)).answer(
        [Item(str(n), Content(f"text {n}")) for n in range(6)]
    )
    assert [answer.label for answer in answers] == [1] * 6
    asked = upstream.texts()
    assert asked[:4] == [f"text {n}" for n in range(4)]
    assert asked[4:] == [f"text {n}" for n in range(3, 6)]


def test_an_interrupted_run_asks_nothing_more(model, upstream, gate, monkeypatch):
    """Promise: Ctrl-C ends the paying; what was under way is still kept."""
    asking, others = model(), set(threading.enumerate())
    with monkeypatch.context() as patch:
        patch.setattr(Future, "result", interrupt)
        with pytest.raises(KeyboardInterrupt):
            asking.answer(items(*"abcdefgh"))
    gate[1].set()
    for worker in set(threading.enumerate()) - others:
        if worker.name.startswith("openai"):
            worker.join(120)
    asked = len(upstream.requests)
    assert asked <= 1
    assert model().answer(items("a"))[0].label == 1
    assert len(upstream.requests) == 1


def interrupt(future: Future[LargeAnswer]) -> LargeAnswer:
    """What waiting for a future does when a person loses patience: only the main thread gets the signal."""
    if threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt
    return WAIT(future)


def test_a_damaged_file_of_paid_answers_is_refused(model, tmp_path):
    """Promise: what was paid for is not thrown away silently."""
    (tmp_path / "paid.sqlite").write_bytes(b"this is no database, and was never one" * 100)
    with pytest.raises(ArtefactError, match=r"paid answers.*paid\.sqlite"):
        model()


# -- secrets and configuration -----------------------------------------------------------------------------------------


def test_key_comes_from_environment_and_is_not_stored(model, upstream, tmp_path, monkeypatch, caplog):
    """Promise: the key is in no file, log, configuration or identity; without it nothing begins."""
    caplog.set_level("DEBUG")
    model().answer(items("x"))
    config = OpenAiConfig(base_url=upstream.base_url, model="big")
    identity = config.identity(LABELS, tmp_path)
    assert KEY.encode() not in (tmp_path / "paid.sqlite").read_bytes()
    assert KEY not in caplog.text
    assert KEY not in config.model_dump_json()
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    assert config.identity(LABELS, tmp_path) == identity
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="environment variable OPENAI_API_KEY is not set"):
        model()
    monkeypatch.setenv("OPENAI_API_KEY", "two\nlines")
    with pytest.raises(ConfigError, match="holds no key"):
        model()


def test_a_server_without_keys_is_sent_none(model, upstream, monkeypatch):
    """Promise: a key goes only where the configuration sends it."""
    model(api_key_env=None).answer(items("x"))
    assert "authorization" not in upstream.headers[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"base_url": "https://host/v1?key=secret"}, "must hold no password, token or key"),
        ({"base_url": "https://host/v1?version=2"}, "no user, password or query"),
        ({"api_key_env": "sk-abcdefghijklmnopqrst"}, "must be the name of an environment variable"),
        ({"base_url": "host/v1"}, "http or https address"),
        ({"max_cost": 5.0}, "max_cost needs input_price"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(values, message):
    """Promise: bad settings are reported before any work."""
    with pytest.raises(ValidationError, match=message):
        OpenAiConfig(**{"model": "big"} | values)


def test_the_identity_is_of_what_decides_answers():
    """Promise: another model, server or label list is another large model; another budget or pace is not."""

    def identity(labels=LABELS, **changes):
        return openai_identity(OpenAiConfig(**{"model": "big"} | changes), labels)

    assert identity() == identity(max_calls=3, timeout_s=1, num_concurrent=2, api_key_env=None)
    others = [identity(model="small"), identity(base_url="http://localhost/v1"), identity(labels=("a", "b"))]
    others += [identity(extra={"seed": 1}), identity(prompt={"descriptions": {LABELS[0]: "sad"}})]
    assert len({identity(), *others}) == 6
