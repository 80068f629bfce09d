"""What clients see of a decision, from a real small side over a stub encoder."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from kcm.bundle.answers import Input
from kcm.bundle.runtime import SmallSide
from kcm.cascade.policy import KEEP_ALL, Decision, Policy
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.inputs.content import TEXT, Content
from kcm.large import Prompts
from kcm.large.adapters.openai import OpenAiConfig
from pipelines.serve.cascade.version import NO_CURVES
from pipelines.serve.config import LimitsConfig, ServeConfig
from pipelines.serve.schemas import ExplainResponse, Refusal
from tests.kcm.bundle.test_bundle import bundle as any_bundle
from tests.pipelines.serve.stubs import version_of


class LengthEncoder:
    """Features that follow from the lengths of a text's words."""

    dim, reads, identity = 4, TEXT, "length"

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        return np.array([[np.cos(example.size * k) for k in range(1, 5)] for example in inputs], np.float32)


def explained(
    example: Input,
    kind: str = "kan",
    network: dict[str, Any] | None = None,
    max_items: int = 128,
    max_waiting: int = 100,
    **policy: Any,
) -> ExplainResponse:
    shape = NetworkConfig(**{"hidden": ()} | (network or {}))
    bundle = any_bundle(
        collaborator=Collaborator(4, 2, shape, kind, seed=0).requires_grad_(False),  # type: ignore[arg-type]
        label_names=("negative", "positive"),
        task_names=("films",),
        large=OpenAiConfig(model="m", api_key_env=None),
        large_head=None,
        policy=Policy(**{"decision": KEEP_ALL} | policy),
        prompts=Prompts(top_k=2),
        certificates={},
    )
    side = SmallSide(bundle, LengthEncoder())
    config = ServeConfig(limits=LimitsConfig(max_items=max_items))

    async def explain() -> ExplainResponse:
        no_escalation = None  # an explanation asks no large model
        version = version_of(side, no_escalation, config, name="7", max_waiting=max_waiting, encoder=side.encoder)
        return await version.explain(example, 3, "mine")

    return asyncio.run(explain())


@pytest.mark.parametrize("network", [{}, {"hidden": (3,)}, {"basis": "quadratic", "mixing": 9}])
def test_contributions_add_up_and_every_mark_lies_on_its_curve(network: dict[str, Any]) -> None:
    found = explained(Input(Content("not a good film")), network=network)
    assert list(found.reasons) == ["judge", "small"]
    assert found.no_curves is None
    assert (found.model_version, found.request_id, found.escalated) == ("7", "mine", False)
    assert [word for word, _ in found.words] == ["not", "a", "good", "film"]
    for reasons in found.reasons.values():
        added = sum(edge.contribution for edge in reasons.contributions)
        assert reasons.logit == pytest.approx(reasons.baseline + added + reasons.rest, abs=1e-4)
        assert reasons.exact == ("hidden" not in network)
        for edge in reasons.contributions:
            nearest = int(np.abs(np.array(edge.points) - edge.value).argmin())
            assert edge.curve[nearest] == pytest.approx(edge.carried, abs=0.05)
            assert edge.to == reasons.label_name if reasons.exact else edge.to.startswith("hidden node ")


def test_the_prompt_is_the_one_that_an_escalated_input_is_sent() -> None:
    soft = {"decision": Decision(decision="threshold", threshold=1e6), "prompt": "soft"}
    found = explained(Input(Content("a film")), **soft)
    assert found.escalated
    assert found.shown.suggestions.keys() == {"negative", "positive"}
    assert [message.role for message in found.shown.messages] == ["system", "user"]
    assert "suggests" in found.shown.messages[0].content


@pytest.mark.parametrize(
    ("kind", "network"), [("mlp", {"hidden": (3,)}), ("kan", {"basis": "relu", "mixing": 9}), ("random_relu", {})]
)
def test_networks_without_curves_say_so_and_the_words_are_there_all_the_same(kind: str, network: Any) -> None:
    found = explained(Input(Content("a good film")), kind=kind, network=network)
    assert (found.reasons, found.no_curves, len(found.words)) == ({}, NO_CURVES, 3)


def test_an_explanation_takes_no_more_items_than_a_request_may_have() -> None:
    assert len(explained(Input(Content("word " * 100)), max_items=10).words) == 9
    assert len(explained(Input(Content("word " * 100))).words) == 60


def test_an_explanation_is_refused_as_a_prediction_is() -> None:
    with pytest.raises(Refusal, match=r"^input\.task: there is no such task, did you mean 'films'\?") as unknown:
        explained(Input(Content("a film"), "filmz"))
    assert unknown.value.status == 422
    with pytest.raises(Refusal, match="too many items wait") as full:
        explained(Input(Content("word " * 30)), max_waiting=16)
    assert (full.value.status, full.value.retry_after_s) == (429, 1)
