"""Promise: a bundle whose large model may say that no label fits is served like any other, whatever that model is.

HTTP replica and deployment of the large model are the real ones; only Ray between them is left out.
"""

from pathlib import Path
from typing import Any

import pytest

from kcm.bundle.bundle import Bundle
from kcm.bundle.frozen_models import load_large
from kcm.cascade.policy import ESCALATE_ALL, Policy
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.config import parse_config
from kcm.encoders.text import TextEncoderConfig
from kcm.inputs.content import Content
from kcm.large import Item
from kcm.large.adapters.openai import OpenAiConfig
from kcm.large.adapters.zero_shot import ZeroShotConfig
from kcm.large.config import LargeConfig
from pipelines.serve.config import ServeConfig
from pipelines.serve.release import Release
from tests.fake_upstream import FakeUpstream, label
from tests.http_replica import opened_http_replica
from tests.kcm.bundle.test_bundle import bundle
from tests.tiny_bert import save_bert

LABELS, NONE = ("book", "pay"), "none of these"
WORDS = ("book", "pay", "none", "of", "these", "a", "table", "the", "bill", "tell", "me", "joke", "who", "are", "you")
TEXTS = ["book a table", "pay the bill", "tell me a joke", "who are you", "the table of you", "are these you", "joke"]
OUTSIDE = set(TEXTS[2:])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"), WORDS)


@pytest.fixture(params=["zero_shot", "openai"])
def large(
    request: pytest.FixtureRequest,
    encoder: Path,
    upstream: FakeUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> LargeConfig:
    if request.param == "zero_shot":
        values = {"encoder": {"model": str(encoder), "max_length": 32}, "template": "{label}"}
        return parse_config(ZeroShotConfig, values)
    monkeypatch.setenv("KEY_OF_THE_OPERATOR", "sk-operator")
    monkeypatch.setenv("SECRET_OF_ANOTHER_SERVICE", "sk-another")

    def answer(body: dict[str, Any]) -> Any:
        text = body["messages"][-1]["content"].split("\n")[1]
        answer = NONE if text in OUTSIDE else text.split()[0]
        content = {"message": {"content": answer}}
        return label(answer, choice=content | {"logprobs": {"content": [{"token": answer, "logprob": -0.1}]}})

    upstream.otherwise = answer
    return OpenAiConfig(model="big", base_url=upstream.base_url, api_key_env="SECRET_OF_ANOTHER_SERVICE")


def bundle_with(large: LargeConfig, encoder: Path, assets: Path) -> Bundle:
    """A bundle that escalates everything to `large`."""
    small = TextEncoderConfig(model=str(encoder), max_length=32)
    return bundle(
        collaborator=Collaborator(32, len(LABELS), NetworkConfig(hidden=()), "kan", seed=0),
        label_names=LABELS,
        none_label=NONE,
        encoder=small,
        encoder_identity=small.identity(assets),
        large=large,
        large_identity=large.identity((*LABELS, NONE), assets),
        large_head=None,
        policy=Policy(decision=ESCALATE_ALL, on_large_failure="error"),
        certificates={},
    )


async def test_rows_outside_the_label_list_are_answered(
    large: LargeConfig, encoder: Path, upstream: FakeUpstream, tmp_path: Path
) -> None:
    ours = bundle_with(large, encoder, tmp_path)
    upstreams = [{"base_url": upstream.base_url, "api_key_env": "KEY_OF_THE_OPERATOR"}]
    config = parse_config(ServeConfig, {"large": {"upstreams": upstreams}})
    release = Release(version="1", bundle=ours.write(tmp_path / "bundle"))

    async with opened_http_replica(release, config, tmp_path) as client:
        response = await client.post("/v1/predict", json={"inputs": [{"text": text} for text in TEXTS]})
        answers, breaker = response.json()["answers"], (await client.get("/v1/model")).json()["breaker"]
    model = load_large(ours, tmp_path, upstreams=config.large.upstreams)
    names = [ours.answer_names[answer.label] for answer in model.answer([Item("", Content(text)) for text in TEXTS])]
    assert [answer["label"] for answer in answers] == names
    assert NONE in names
    assert {answer["route"] for answer in answers} == {"large"}
    assert all(set(answer["probabilities"]) == {*LABELS, NONE} for answer in answers)
    assert breaker == "closed"
    assert {headers["authorization"] for headers in upstream.headers} <= {"Bearer sk-operator"}
