"""The openai client against real Serve in place of its LLM: matched or passed through, streamed or not, and left."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import openai
import pytest
from ray import serve

from jobs.work.service import configured, prepared
from kcm.large.adapters.openai import OpenAiConfig, openai_identity
from pipelines.serve.deploy.app import build_app, start
from tests.conftest import OPERATORS_KEY
from tests.fake_upstream import FakeUpstream, Turn, fake_upstream
from tests.ports import free_port
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

SYSTEM = "Is the review positive or negative? Answer with one word."
KEY = "the-key-of-ann"
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'
STREAM = {"Content-Type": "text/event-stream"}


@dataclass(frozen=True)
class Place:
    """A service and its upstream."""

    url: str
    upstream: FakeUpstream

    def client(self, key: str = KEY) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)


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
        yield Place(start(app, settings.serve, ready_timeout_s=400), upstream)
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


def test_stream_passes_through_and_ends_with_its_caller(place: Place) -> None:
    """The first event arrives while the upstream has not sent the second; a caller that leaves closes the call."""
    place.upstream.plan(Turn(body=EVENT * 2, headers=STREAM, stall_after=len(EVENT)))
    hung_up = place.upstream.hung_up
    with place.client().chat.completions.create(**review("a film", n=2, stream=True)) as stream:
        first = next(iter(stream))
    assert first.choices[0].delta.content == "x"
    wait_until(lambda: place.upstream.hung_up == hung_up + 1)
