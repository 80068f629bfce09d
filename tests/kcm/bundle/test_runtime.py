import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

from kcm.api.cascade import Cascade, load_cascade
from kcm.bundle.answers import Answer, Failure, Input, Unreadable
from kcm.bundle.bundle import Bundle, facts
from kcm.bundle.frozen_models import load_large
from kcm.bundle.runtime import SmallSide
from kcm.cascade.outcome_rows import OutcomeTable
from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL, Decision, Policy
from kcm.cascade.thresholds import FAR
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.encoders.text import TextEncoderConfig
from kcm.errors import ArtefactError, ConfigError
from kcm.inputs.content import IMAGE, TEXT, Content, contents
from kcm.inputs.pictures import PictureError
from kcm.large import Item, LargeAnswer, LinearHead, UpstreamConfig
from kcm.large.adapters.classifier import ClassifierConfig
from kcm.large.adapters.openai import OpenAiConfig, openai_identity
from kcm.large.base import Cost
from tests.fake_upstream import label
from tests.kcm.bundle.test_bundle import bundle as any_bundle
from tests.tiny_bert import save_bert

LABELS = ("bad", "good", "unclear")
DIM = 8
TEXTS = [f"text number {number}" for number in range(40)]


class StubEncoder:
    """Features that depend on the text alone."""

    dim, identity, reads = DIM, "stub", TEXT

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        seeds = [int.from_bytes(hashlib.sha256(given.text.encode()).digest()[:4], "big") for given in inputs]
        return np.stack([np.random.default_rng(seed).normal(size=DIM) for seed in seeds]).astype(np.float32)


class ScriptedModel:
    """A large model that gives scripted answers, and records what it was asked."""

    def __init__(self, answer: LargeAnswer | None = None) -> None:
        self.asked: list[Item] = []
        self._answer = answer or LargeAnswer(2, np.array([0.1, 0.2, 0.7], np.float32), Cost(seconds=3.0))

    def answer(self, items: Sequence[Item]) -> list[LargeAnswer]:
        self.asked += items
        return [self._answer for _ in items]


def bundle(policy: Policy | None = None, dim: int = DIM, **changes: Any) -> Bundle:
    collaborator = Collaborator(dim, len(LABELS), NetworkConfig(hidden=(4,)), "kan", seed=0)
    with torch.no_grad():  # judge and small start as copies; here they have to differ
        for parameter in collaborator.small.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    parts: dict[str, Any] = {
        "collaborator": collaborator,
        "encoder": TextEncoderConfig(model="stub"),
        "encoder_identity": "stub",
        "large": ClassifierConfig(),
        "large_identity": "scripted",
        "large_head": None,
        "policy": policy or Policy(),
        "certificates": {},
    }
    return any_bundle(**parts | changes)


def answers(policy: Policy, inputs: Sequence[Input], large: ScriptedModel | None = None) -> list[Answer | Failure]:
    return Cascade(SmallSide(bundle(policy), StubEncoder()), large or ScriptedModel()).answer(inputs)


def outcome_table(texts: Sequence[str]) -> OutcomeTable:
    """What an evaluation would record of the same rows, from the collaborator called directly."""
    with torch.inference_mode():
        judge, small = bundle().collaborator(torch.from_numpy(StubEncoder().encode(contents(texts))))
    num_rows = len(texts)
    return OutcomeTable(
        id=np.array(texts, dtype=object),
        task=np.array(["movies"] * num_rows, dtype=object),
        split=np.array(["test"] * num_rows, dtype=object),
        label=np.zeros(num_rows, dtype=np.int64),
        judge_logits=judge.double().numpy(),
        small_logits=small.double().numpy(),
        large_label=np.full(num_rows, 2),
        large_probabilities=np.tile([0.1, 0.2, 0.7], (num_rows, 1)),
        large_cost=np.full(num_rows, 3.0),
        large_error=np.zeros(num_rows, dtype=bool),
        group=np.full(num_rows, None),
        label_names=LABELS,
    )


def middle(temperature: float = 1.0) -> Decision:
    """A threshold that sends half of TEXTS either way."""
    judge = outcome_table(TEXTS).judge_logits
    scores = bundle(Policy(temperature=temperature)).gate.score(None, judge)
    return Decision(decision="threshold", threshold=float(np.median(scores)))


def test_route_and_label_equal_evaluation() -> None:
    """Promise: inputs take the route and get the label of evaluation; only the escalated reach the large model.

    Confidence is the judge's largest probability at the policy's temperature.
    """
    table, policy, large = outcome_table(TEXTS), Policy(temperature=2.0, decision=middle(2.0)), ScriptedModel()
    kept = policy.keep(bundle(policy).gate.score(None, table.judge_logits))
    found = answers(policy, [Input(Content(text), id=f"id {text}") for text in TEXTS], large)
    assert [answer.route for answer in found] == ["small" if keeps else "large" for keeps in kept]
    expected = np.where(kept, table.small_label, table.large_label)
    assert [LABELS.index(answer.label) for answer in found] == expected.tolist()
    assert 0 < kept.sum() < len(kept)
    confidence = softmax(table.judge_logits / 2, axis=1).max(1)
    assert [answer.judge_confidence for answer in found] == pytest.approx(confidence.tolist())
    escalated = [text for text, keeps in zip(TEXTS, kept, strict=True) if not keeps]
    assert [(item.id, item.content.text) for item in large.asked] == [(f"id {text}", text) for text in escalated]


def test_probabilities_are_those_of_the_model_that_answered() -> None:
    logits = torch.from_numpy(outcome_table(TEXTS[:1]).small_logits)
    (kept,) = answers(Policy(decision=KEEP_ALL), [Input(Content(TEXTS[0]))])
    assert kept.probabilities == pytest.approx(dict(zip(LABELS, logits.softmax(-1)[0].tolist(), strict=True)))
    (escalated,) = answers(Policy(decision=ESCALATE_ALL), [Input(Content(TEXTS[0]))])
    assert escalated.probabilities == pytest.approx({"unclear": 0.7, "good": 0.2, "bad": 0.1})
    assert list(escalated.probabilities) == ["unclear", "good", "bad"]


def test_the_large_model_may_say_that_no_label_fits() -> None:
    model = ScriptedModel(LargeAnswer(len(LABELS)))
    side = SmallSide(bundle(Policy(decision=ESCALATE_ALL), none_label="none of these"), StubEncoder())
    (answer,) = Cascade(side, model).answer([Input(Content("a"))])
    assert (answer.label, answer.route) == ("none of these", "large")


def test_task_threshold_needs_a_task_in_the_request() -> None:
    policy = Policy(decision=ESCALATE_ALL, task_decisions={"movies": KEEP_ALL})
    found = answers(policy, [Input(Content("a"), "movies"), Input(Content("a"), "tweets"), Input(Content("a"))])
    assert [answer.route for answer in found] == ["small", "large", "large"]


def test_far_inputs_escalate_beyond_the_given_distance() -> None:
    residuals = {"metric_CC": torch.eye(3).double(), "target_C": torch.full((3,), 10.0).double()}
    state = {"residuals": residuals | {"offset_C": torch.zeros(3).double()}}
    side = SmallSide(bundle(Policy(decision=KEEP_ALL), learner_state=state), StubEncoder())
    novelty = [judged.novelty for judged in side.judge([Input(Content(text)) for text in TEXTS])]
    logits_NC = outcome_table(TEXTS).judge_logits
    by_hand = np.linalg.norm(logits_NC[:, None] - 10 * np.eye(3), axis=2).min(1)
    np.testing.assert_allclose(novelty, by_hand, rtol=1e-5)
    side.farthest = float(np.median(novelty))
    judgements = side.judge([Input(Content(text)) for text in TEXTS])
    assert [judged.keeps for judged in judgements] == [distance < side.farthest for distance in novelty]
    answers = Cascade(side, ScriptedModel()).answer([Input(Content(text)) for text in TEXTS])
    assert [answer.route == "small" for answer in answers] == [judged.keeps for judged in judgements]


def test_far_inputs_escalate_from_the_first_one_on(tmp_path: Path) -> None:
    """Promise: a policy that keeps all still escalates an input far from all train rows; the rule is in the bundle."""
    residuals = {"metric_CC": torch.eye(3).double(), "target_C": torch.full((3,), 10.0).double()}
    state = {"residuals": residuals | {"offset_C": torch.zeros(3).double()}}
    logits_NC = outcome_table(TEXTS).judge_logits
    distance_N = np.linalg.norm(logits_NC[:, None] - 10 * np.eye(3), axis=2).min(1)
    policy = Policy(decision=KEEP_ALL, farthest=float(np.median(distance_N)))
    read = Bundle.read(bundle(policy, learner_state=state).write(tmp_path / "bundle"))
    judgements = SmallSide(read, StubEncoder()).judge([Input(Content(text)) for text in TEXTS])
    far_N = distance_N > policy.farthest
    assert [judged.keeps for judged in judgements] == (~far_N).tolist()
    assert [judged.far for judged in judgements] == far_N.tolist()
    assert read.gate.score(None, logits_NC)[far_N].tolist() == [FAR] * int(far_N.sum())
    assert all(abs(judged.gate_score) < 100 for judged in judgements)
    assert {judged.against for judged in judgements} == {"", ", but the input is far from all train rows"}
    answers = Cascade(SmallSide(read, StubEncoder()), ScriptedModel()).answer([Input(Content(text)) for text in TEXTS])
    assert {answer.threshold for answer in answers} == {None}
    assert facts(read)["route"] == "the small model answers everything except inputs far from all train rows"
    assert "also inputs unlike all train rows" in facts(bundle(Policy(decision=KEEP_ALL)))["route"]


def test_an_answer_costs_the_seconds_of_both_sides() -> None:
    (kept,) = answers(Policy(decision=KEEP_ALL), [Input(Content("a"))])
    (escalated,) = answers(Policy(decision=ESCALATE_ALL), [Input(Content("a"))])
    assert 0 < kept.cost_s < 3.0 < escalated.cost_s


def test_failed_large_answer_follows_the_policy() -> None:
    """Promise: a failed large answer is replaced and flagged, or reported, as the policy says."""
    failed = ScriptedModel(LargeAnswer(None, None, error="no tokens left"))
    (replaced,) = answers(Policy(on_large_failure="answer_small"), [Input(Content("a"))], failed)
    (small,) = answers(Policy(decision=KEEP_ALL), [Input(Content("a"))])
    assert (replaced.label, replaced.route, replaced.degraded) == (small.label, "small_degraded", True)
    assert not small.degraded
    assert answers(Policy(on_large_failure="error"), [Input(Content("a"))], failed) == [Failure("no tokens left")]


# -- loading -----------------------------------------------------------------------------------------------------------


def tiny_model(folder: Path, seed: int) -> Path:
    return save_bert(folder, "abcd", max_tokens=32, dim=DIM, seed=seed)


@pytest.fixture(scope="module")
def loadable(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    """A bundle whose two models lie in folders."""
    root = tmp_path_factory.mktemp("loadable")
    small = TextEncoderConfig(model=str(tiny_model(root / "small", 0)), max_length=16)
    large = TextEncoderConfig(model=str(tiny_model(root / "large", 1)), max_length=16)
    head = LinearHead(np.eye(3, 8, dtype=np.float32), np.zeros(3, np.float32))
    made = bundle(
        encoder=small,
        encoder_identity=small.identity(root),
        large=ClassifierConfig(encoder=large),
        large_identity=ClassifierConfig(encoder=large).identity(LABELS, root, head=head),
        large_head=head,
    )
    return made, root


@pytest.mark.parametrize(("side", "message"), [("small", "the encoder differs"), ("large", "the large model differs")])
def test_a_model_other_than_the_bundle_s_own_is_refused(
    loadable: tuple[Bundle, Path], tmp_path: Path, side: str, message: str
) -> None:
    made, root = loadable
    shutil.copytree(root, tmp_path / "models")
    tiny_model(tmp_path / "models" / side, seed=7)
    moved = replace(
        made,
        encoder=made.encoder.model_copy(update={"model": str(tmp_path / "models/small")}),
        large=ClassifierConfig(encoder=TextEncoderConfig(model=str(tmp_path / "models/large"), max_length=16)),
    )
    with pytest.raises(ArtefactError, match=message):
        load_cascade(moved.write(tmp_path / "bundle"), tmp_path)


def test_an_input_that_cannot_be_read_fails_alone() -> None:
    class Picky(StubEncoder):
        reads = IMAGE

        def read(self, content: Content) -> Content:
            if not content.text:
                raise PictureError("it is blank")
            return content

    inputs = [Input(Content()), *(Input(Content(text)) for text in TEXTS), Input(Content())]
    found = Cascade(SmallSide(bundle(Policy(decision=middle())), Picky()), ScriptedModel()).answer(inputs)
    assert found[0] == found[-1] == Unreadable("it is blank")
    labels = [answer.label for answer in answers(Policy(decision=middle()), inputs[1:-1])]
    assert [answer.label for answer in found[1:-1]] == labels


def asking(base_url: str, variable: str) -> Bundle:
    """A bundle, from wherever, that names a server and a variable of the environment."""
    large = OpenAiConfig(model="big", base_url=base_url, api_key_env=variable, max_calls=1000)
    return bundle(large=large, large_identity=openai_identity(large, LABELS))


def test_bundle_decides_neither_server_nor_key_variable(upstream, monkeypatch, tmp_path) -> None:
    """Promise: a server that the operator has not named gets nothing; a named one the operator's key and budget."""
    monkeypatch.setenv("SECRET_OF_ANOTHER_SERVICE", "secret")
    monkeypatch.setenv("OPERATORS_KEY", "key")
    foreign = asking(upstream.base_url, "SECRET_OF_ANOTHER_SERVICE")
    for upstreams in ([], [UpstreamConfig(api_key_env="OPERATORS_KEY")]):
        with pytest.raises(
            ConfigError,
            match=rf"is at {upstream.base_url}, which this configuration does not allow.*serve\.large\.upstreams",
        ):
            load_large(foreign, tmp_path, upstreams=upstreams)
    assert upstream.requests == []
    allowed = UpstreamConfig(base_url=upstream.base_url, api_key_env="OPERATORS_KEY", max_calls=1)
    upstream.otherwise = lambda _: label("good")
    model = load_large(foreign, tmp_path, upstreams=[allowed])
    first, second = model.answer([Item("1", Content("a")), Item("2", Content("b"))])
    assert {first.error, second.error} == {None, "the budget is spent: max_calls = 1"}
    assert [headers["authorization"] for headers in upstream.headers] == ["Bearer key"]
