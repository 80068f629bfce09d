"""The large model's deployment: its replicas spend one budget together, and one slow question delays no other."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kcm.bundle.frozen_models import FrozenModels
from kcm.encoders import Encoder
from kcm.encoders.pixels import PixelsConfig
from kcm.errors import ConfigError
from kcm.inputs.content import Content
from kcm.large import Item, LargeAnswer, UpstreamConfig
from kcm.large.adapters.classifier import ClassifierConfig
from kcm.large.adapters.openai import OpenAiConfig, openai_identity
from pipelines.serve.cascade.models import large as module
from pipelines.serve.cascade.models.large import Large, budget_store
from pipelines.serve.config import FeedbackConfig, LargeReplicaConfig
from pipelines.serve.release import Release
from pipelines.serve.sources import FixedSource
from tests.fake_upstream import FakeUpstream, Turn, completion, label
from tests.pipelines.serve.stubs import picture

LABELS = ("negative", "positive")
RELEASE = Release(version="1", bundle=Path("/bundle"))


@pytest.fixture(autouse=True)
def _bundle(upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle that asks a server, by two questions at a time, and may spend nothing of its own accord."""
    asked = OpenAiConfig(base_url=upstream.base_url, model="big", num_concurrent=2, max_calls=0)
    identity = openai_identity(asked, LABELS)
    bundle = FrozenModels(
        label_names=LABELS, encoder=PixelsConfig(), encoder_identity="", large=asked, large_identity=identity
    )
    monkeypatch.setattr(module, "FrozenModels", SimpleNamespace(read_models=lambda _: bundle))


async def deployed(*arguments: Any) -> Any:
    """The deployment as Ray Serve makes it, of one release for good."""
    deployment = Large.func_or_class.__new__(Large.func_or_class)  # type: ignore[attr-defined]
    await deployment.__init__(FixedSource(RELEASE), *arguments)
    return deployment


async def replica(upstream: FakeUpstream, log: FeedbackConfig, max_calls: int | None) -> Any:
    allowed = UpstreamConfig(base_url=upstream.base_url, api_key_env=None, max_calls=max_calls)
    config = LargeReplicaConfig(upstreams=(allowed,), attempt_timeout_s=60.0, timeout_s=70.0)
    return await deployed(config, Path("/assets"), log)


def items(*texts: str) -> list[Item]:
    return [Item("", Content(text)) for text in texts]


async def test_replicas_share_a_budget_across_restarts(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Promise: max_calls: 5 is five calls, the probe among them, however often the service starts."""
    log = FeedbackConfig(url=f"sqlite:///{tmp_path}/feedback.db")

    async def ask(start: int) -> list[LargeAnswer]:
        replicas = [await replica(upstream, log, max_calls=5) for _ in range(3)]
        asked = [items(*(f"{start} {number} {part}" for part in range(3))) for number in range(3)]
        answers = [await each.answer(question, RELEASE) for each, question in zip(replicas, asked, strict=True)]
        return [answer for each in answers for answer in each]

    answers = [answer for start in range(3) for answer in await ask(start)]
    assert len(upstream.requests) == 5
    assert sum(answer.label is not None for answer in answers) == 4
    assert not any(answer.outage for answer in answers)


async def test_a_request_is_answered_while_another_s_question_stalls(upstream: FakeUpstream) -> None:
    """Promise: one slow question costs its own request alone."""
    go_on = threading.Event()

    def answer(body: dict[str, Any]) -> Turn:
        if "slow" in str(body["messages"]):
            assert go_on.wait(240)
        return label("positive")

    upstream.otherwise = answer
    deployment = await replica(upstream, FeedbackConfig(), max_calls=None)
    stalled = asyncio.create_task(deployment.answer(items("slow"), RELEASE))
    others = [asyncio.create_task(deployment.answer(items(f"text {n}"), RELEASE)) for n in range(60)]
    answered = [answer for each in await asyncio.gather(*others) for answer in each]
    assert not stalled.done()
    go_on.set()
    assert [answer.label for answer in [*answered, *await stalled]] == [1] * 61


async def test_same_large_model_is_in_memory_once(upstream: FakeUpstream) -> None:
    """Promise: a challenger and the version before cost no memory here, and no second probe of a paid server."""
    others = [Release(version=name, bundle=Path("/bundle") / name) for name in ("2", "3")]
    deployment = await replica(upstream, FeedbackConfig(), max_calls=None)
    answers = []
    for release in (RELEASE, *others):
        answers += await deployment.answer(items(f"a question to {release.version}"), release)
    assert len(answers) == 3
    assert len(upstream.requests) == 4  # three questions and one probe


@pytest.mark.parametrize(
    ("turn", "told"),
    [
        (Turn(400, '{"detail": "Server is pinned to \'small\'"}'), ["status 400: Server is pinned to 'small'"]),
        (completion("no label"), []),
        (label("positive"), []),
    ],
    ids=["refused", "off-label", "a label"],
)
async def test_a_model_that_does_not_answer_the_probe_is_told_of(
    upstream: FakeUpstream, caplog: pytest.LogCaptureFixture, turn: Turn, told: list[str]
) -> None:
    """Promise: the operator reads why, where clients only find that the small model answers."""
    upstream.otherwise = lambda _: turn
    await replica(upstream, FeedbackConfig(), max_calls=None)
    probes = [said.split(": ", 1)[1] for said in caplog.messages if "does not answer a probe" in said]
    assert probes == told


def test_a_budget_needs_a_database_in_which_replicas_share_it() -> None:
    limited, unlimited = OpenAiConfig(model="big", max_calls=5), OpenAiConfig(model="big")
    with pytest.raises(ConfigError, match=r"no database.*serve\.feedback\.url"):
        budget_store(limited.upstream, FeedbackConfig())
    store = budget_store(limited.upstream, FeedbackConfig(url="sqlite:////log.db", timeout_s=3.0))
    assert store is not None
    assert (store.url, store.prefix, store.timeout_s) == ("sqlite:////log.db", "paid_", 3.0)
    assert budget_store(unlimited.upstream, FeedbackConfig()) is None
    assert budget_store(None, FeedbackConfig()) is None


class Sees:
    """A model that answers what it can see, and remembers what it was given."""

    def __init__(self, encoder: Encoder) -> None:
        self.given: list[Item] = []
        self.read = encoder.read

    def answer(self, batch: list[Item]) -> list[LargeAnswer]:
        self.given += batch
        return [LargeAnswer(None if item.content.pixels is None else 1) for item in batch]


async def test_bad_picture_fails_only_its_own_item(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Promise: pictures are read before they are batched and a bad one costs itself alone."""
    encoder = PixelsConfig(side=2)
    model = Sees(encoder.build(Path()))
    large = ClassifierConfig(encoder=encoder)
    bundle = FrozenModels(label_names=LABELS, encoder=encoder, encoder_identity="", large=large, large_identity="sees")
    monkeypatch.setattr(module, "FrozenModels", SimpleNamespace(read_models=lambda _: bundle))
    monkeypatch.setattr(module, "load_large", lambda *_, **__: model)
    deployment = await deployed(LargeReplicaConfig(), Path("/assets"), FeedbackConfig())
    images = [picture(7), b"no picture", picture(5000, 4001), picture(9)]
    answers = await deployment.answer([Item("", Content("", image)) for image in images], RELEASE)
    assert [answer.label for answer in answers] == [1, None, None, 1]
    shapes = [item.content.pixels.shape for item in model.given if item.content.pixels is not None]
    assert shapes == [(2, 2, 3)] * 2, "small squares, whatever was sent"
