"""The openai client against real Serve in place of its LLM: matched or passed through, streamed or not, and left."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import openai
import pytest
from ray import serve

from jobs.work.service import configured, prepared
from kcm.large.adapters.openai import OpenAiConfig, openai_identity
from kcm.large.response_cache import ResponseCache, ResponseStore
from pipelines.serve.deploy.app import build_app, start
from pipelines.serve.http.spending import SETTLE_S
from tests.conftest import OPERATORS_KEY
from tests.fake_upstream import FakeUpstream, Turn, completion, fake_upstream, label
from tests.ports import free_port
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

SYSTEM = "Is the review positive or negative? Answer with one word."
KEY = "the-key-of-ann"
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'
STREAM, JSON = {"Content-Type": "text/event-stream"}, {"Content-Type": "application/json"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
NUMBERS = count()


@dataclass(frozen=True)
class Place:
    """A service, its upstream, and the database of its budget."""

    url: str
    upstream: FakeUpstream
    log: Path

    def client(self, key: str = KEY) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def spent(self) -> tuple[int, float]:
        """Once ended calls are settled."""
        time.sleep(5 * SETTLE_S)
        return ResponseCache(ResponseStore.in_log(f"sqlite:///{self.log}"), self.upstream.base_url).spent()


@pytest.fixture(scope="module")
def place(
    quick_bundle: Callable[..., Path],
    assets_dir: Path,
    ray_cluster: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    """What `kcm serve CONFIG --bundle DIR` serves, for a file with `serve` alone."""
    folder = tmp_path_factory.mktemp("drop_in")
    (folder / "keys").write_text(f"ann {sha256(KEY.encode()).hexdigest()}\n")
    with fake_upstream() as upstream, pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPSTREAM_KEY", OPERATORS_KEY)
        patch.setenv("XDG_DATA_HOME", str(folder))
        large = OpenAiConfig(model="gpt-4o-mini", base_url=upstream.base_url, api_key_env="OTHER_KEY")
        identity = openai_identity(large, ("negative", "positive"))
        bundle = quick_bundle(large=large, large_identity=identity, large_head=None)
        proxy = {
            "upstream": upstream.base_url,
            "api_key_env": "UPSTREAM_KEY",
            "prices": {"gpt-4o-mini": [0.15, 0.6]},
            "max_cost": 1.0,
            "template": {
                "messages": [{"role": "system", "content": SYSTEM}],
                "before": "Review: ",
                "replies": {"negative": "NEGATIVE.", "positive": "POSITIVE."},
                "reading": {"place": "field label"},
            },
        }
        sections = {
            "proxy": proxy,
            "port": free_port(),
            "cpus": 0.5,
            "timeout_s": 60.0,  # a busy machine is no fault of the service
            "judge_timeout_s": 40.0,
            "large": {"cpus": 0.5, "timeout_s": 50.0, "attempt_timeout_s": 50.0},
            "auth": {"keys_file": str(folder / "keys")},
            "feedback": {"url": f"sqlite:///{folder}/log.db"},
        }
        run, own = configured({"serve": sections, "assets_path": str(assets_dir)}, "proxy.yaml")
        source, _, settings = prepared(run, bundle, None, own)
        app = build_app(source, settings.serve, settings.assets_path)
        yield Place(start(app, settings.serve, ready_timeout_s=400), upstream, folder / "log.db")
        serve.shutdown()


def review(text: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"Review: {text}"}]
    return {"model": "gpt-4o-mini", "messages": messages, "max_tokens": 5} | more


def asked(place: Place, **request: Any) -> tuple[Any, str]:
    """The completion, and who answered."""
    raw = place.client().chat.completions.with_raw_response.create(**request)
    return raw.parse(), raw.headers["x-kcm-route"]


def test_template_is_answered_by_both_sides(place: Place, sentences: list[str]) -> None:
    """By the small model in the template's words, or by the upstream, which gets the caller's own request."""
    before, answers = len(place.upstream.requests), [asked(place, **review(text)) for text in sentences[:24]]
    routes = [route for _, route in answers]
    assert set(routes) == {"small", "large"}
    replies = {route: {a.choices[0].message.content for a, other in answers if other == route} for route in routes}
    assert replies["small"] <= {"NEGATIVE.", "POSITIVE."}
    assert replies["large"] == {'{"label": "positive"}'}
    escalated = [review(text) for text, route in zip(sentences, routes, strict=False) if route == "large"]
    assert place.upstream.requests[before:] == escalated
    assert {headers["authorization"] for headers in place.upstream.headers[before:]} == {f"Bearer {OPERATORS_KEY}"}
    chunks = list(place.client().chat.completions.create(**review(sentences[0], stream=True)))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) in ("NEGATIVE.", "POSITIVE.")


def test_tools_pass_through_with_the_operators_key(place: Place) -> None:
    place.upstream.plan(completion("from the LLM", headers={}))
    request = review("a film", tools=[TOOL])
    answer, route = asked(place, **request)
    assert (answer.choices[0].message.content, route) == ("from the LLM", "upstream")
    assert place.upstream.requests[-1] == request
    assert place.upstream.headers[-1]["authorization"] == f"Bearer {OPERATORS_KEY}"
    assert KEY not in str(place.upstream.headers)


def test_stream_passes_through_and_ends_with_its_caller(place: Place) -> None:
    """The first event arrives while the upstream has not sent the second; a caller that leaves closes the call."""
    place.upstream.plan(Turn(body=EVENT * 2, headers=STREAM, stall_after=len(EVENT)))
    hung_up = place.upstream.hung_up
    with place.client().chat.completions.create(**review("a film", n=2, stream=True)) as stream:
        first = next(iter(stream))
    assert first.choices[0].delta.content == "x"
    wait_until(lambda: place.upstream.hung_up == hung_up + 1)


def test_whole_stream_passes_through(place: Place) -> None:
    place.upstream.plan(Turn(body=EVENT * 5 + b"data: [DONE]\n\n", headers=STREAM))
    chunks = list(place.client().chat.completions.create(**review("a film", n=2, stream=True)))
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["x"] * 5


@pytest.mark.parametrize(
    ("status", "kind"), [(400, openai.BadRequestError), (429, openai.RateLimitError), (500, openai.InternalServerError)]
)
def test_errors_of_the_upstream_reach_the_client(place: Place, status: int, kind: type[openai.APIStatusError]) -> None:
    place.upstream.plan(Turn(status, '{"error": {"message": "its own", "code": "its_code"}}', JSON))
    with pytest.raises(kind, match="its own") as caught:
        asked(place, **review("a film", n=2))
    assert (caught.value.status_code, caught.value.code) == (status, "its_code")


@pytest.mark.parametrize("key", ["wrong", OPERATORS_KEY])
def test_callers_without_a_key_of_theirs_reach_nobody(place: Place, key: str) -> None:
    before = len(place.upstream.requests)
    for request in (review("a film"), review("a film", n=2)):
        with pytest.raises(openai.AuthenticationError):
            place.client(key).chat.completions.create(**request)
    assert len(place.upstream.requests) == before


def test_both_kinds_of_calls_are_booked_together(place: Place, sentences: list[str]) -> None:
    """The replicas of the large model and the door are processes of their own, with one budget."""
    place.upstream.otherwise = lambda _: label("positive")
    calls, cost = place.spent()
    assert asked(place, **review("a film", n=2))[1] == "upstream"
    assert place.spent() == (calls + 1, pytest.approx(cost + (100 * 0.15 + 10 * 0.6) / 1e6))
    for text in sentences[24:80]:
        if asked(place, **review(f"{text} {next(NUMBERS)}"))[1] == "large":
            break
    assert place.spent()[0] == calls + 2
    with pytest.raises(openai.APIStatusError) as caught:
        asked(place, **review("a film", model="gpt-dear"), n=2)
    assert caught.value.status_code == 403
