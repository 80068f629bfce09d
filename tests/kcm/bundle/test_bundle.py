import io
import pickletools
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kcm.bundle.answers import Input, Judgement
from kcm.bundle.bundle import Bundle, Lineage
from kcm.bundle.runtime import SmallSide, load_small_side
from kcm.cascade.gate_kinds import GateInputs, GateRows, form_named
from kcm.cascade.policy import ESCALATE_ALL, Decision, Policy
from kcm.cascade.reference import Reference
from kcm.certification.certificate import Certificate
from kcm.certification.monitoring.novelty import NoveltyReference
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.config import parse_config
from kcm.encoders.text import TextEncoderConfig
from kcm.encoders.words import fit_words
from kcm.errors import ArtefactError, ConfigError
from kcm.inputs.content import Content
from kcm.large import LargeConfig, LinearHead
from kcm.large.adapters.classifier import ClassifierConfig
from kcm.learners import LearnerConfig
from kcm.learners.replay import ReplayConfig
from tests.tiny_bert import save_bert

FEATURES, LABELS = 6, ("bad", "good", "unclear")
THRESHOLD = Decision(decision="threshold", threshold=0.1 + 0.2)

ONE_LAYER = {"hidden": (), "spline_order": 1, "base_activation": "none", "centred": True, "zero_start": True}
NETWORKS = [
    {},
    {"shared": True},
    {"scaling": "first_task"},
    {"mixing": 9},
    ONE_LAYER,
    {"base": "means"},
    {"base": "lda", "shared": True},
]


def collaborator(kind: str = "kan", **network: Any) -> Collaborator:
    made = Collaborator(FEATURES, len(LABELS), NetworkConfig(**{"hidden": (4,)} | network), kind, seed=3)  # type: ignore[arg-type]
    for number, parameter in enumerate(made.parameters()):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
    return made


def certificate(decision: Decision = THRESHOLD) -> Certificate:
    return Certificate(
        method="regret",
        epsilon=0.02,
        delta=0.1,
        decision=decision.decision,
        threshold=decision.threshold,
        bound=0.019,
        valid=True,
        call_rate=0.4,
        searched=decision,
        certified=decision,
        num_rows=300,
        num_units=280,
        fewest_units=114,
        reason="the searched threshold is certified",
    )


def bundle(**changes: Any) -> Bundle:
    rng = np.random.default_rng(0)
    parts: dict[str, Any] = {
        "collaborator": collaborator(),
        "seed": 3,
        "label_names": LABELS,
        "task_names": ("movies", "tweets"),
        "encoder": TextEncoderConfig(model="some/encoder"),
        "encoder_identity": "e" * 64,
        "large": ClassifierConfig(encoder=TextEncoderConfig(model="some/larger", pooling="cls")),
        "large_identity": "f" * 64,
        "large_head": LinearHead(rng.random((3, 8), dtype=np.float32), rng.random(3, dtype=np.float32)),
        "policy": Policy(temperature=1.3, decision=THRESHOLD, task_decisions={"movies": ESCALATE_ALL}),
        "learner": ReplayConfig(memory=7),
        "certificates": {None: certificate(), "movies": certificate(ESCALATE_ALL)},
        "metrics": {"overall": {"cascade_accuracy": 0.9, "forgetting_first": None}},
        "lineage": Lineage(artefacts={"train": "abc"}, parent="0" * 64),
    }
    return Bundle(**parts | changes)


def round_trip(original: Bundle, tmp_path: Path) -> Bundle:
    return Bundle.read(original.write(tmp_path / "bundle"))


def test_every_part_comes_back(tmp_path: Path) -> None:
    original = bundle(policy=Policy(decision=THRESHOLD), certificates={None: certificate()})
    found = round_trip(original, tmp_path)
    for name in ("seed", "label_names", "task_names", "encoder", "encoder_identity", "large", "large_identity"):
        assert getattr(found, name) == getattr(original, name)
    for name in ("policy", "learner", "certificates", "metrics", "lineage"):
        assert getattr(found, name) == getattr(original, name)
    assert found.large_head is not None
    assert original.large_head is not None
    assert np.array_equal(found.large_head.weight_CD, original.large_head.weight_CD)
    assert np.array_equal(found.large_head.bias_C, original.large_head.bias_C)


@pytest.mark.parametrize(
    ("kind", "network"),
    [*((kind, network) for kind in ("kan", "mlp") for network in NETWORKS), ("random_relu", {"hidden": ()})],
    ids=str,
)
def test_the_collaborator_answers_bit_for_bit_as_before(tmp_path: Path, kind: str, network: dict[str, Any]) -> None:
    before = collaborator(kind, **network)
    features = torch.randn(5, FEATURES)
    if network.get("scaling"):
        before.normalizer.fit([features])  # type: ignore[operator]
    if before.base is not None:
        before.base.add(before.base.sums_of([(features, torch.tensor([0, 1, 1, 2, 0]))]))
    after = round_trip(bundle(collaborator=before), tmp_path).collaborator
    assert not after.training
    for left, right in zip(before(features), after(features), strict=True):
        assert torch.equal(left, right)
    if before.base is not None:  # the next task goes on from the same sums
        assert after.base is not None
        assert all(map(torch.equal, before.base.buffers(), after.base.buffers()))


def test_missing_component_of_a_bundle_is_named(
    outside_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = parse_config(LearnerConfig, {"name": "anchor", "strength": 0.5})
    large = parse_config(LargeConfig, {"adapter": "words:WordsConfig", "words": {"good": ["fine"]}})
    original = bundle(learner=learner, large=large, large_head=None)
    folder = original.write(tmp_path / "bundle")
    found = Bundle.read(folder)
    assert (found.learner, found.large) == (learner, large)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(outside_package)])
    monkeypatch.delitem(sys.modules, "anchor")
    with pytest.raises(ConfigError, match="unknown learner 'anchor'"):
        Bundle.read(folder)


def test_the_gate_of_signals_scores_as_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    features, logits = rng.random((90, FEATURES)).astype(np.float32), rng.normal(size=(90, 3))
    before = Collaborator(FEATURES, len(LABELS), NetworkConfig(base="lda"), "kan", seed=3)
    assert before.base is not None
    before.base.add(before.base.sums_of([(torch.from_numpy(features), torch.arange(90) % 3)]))
    right = rng.random((2, 90)) < 0.7
    fitted = form_named("signals").fit(
        GateRows(
            inputs=GateInputs(logits, logits, features),
            small_correct=right[0],
            large_correct=right[1],
            reference=Reference.of(before, {}),
        )
    )
    original = bundle(collaborator=before, policy=Policy(gate="signals"), gate_head=fitted.head, certificates={})
    found = round_trip(original, tmp_path)
    assert np.array_equal(found.gate.score(features, logits), original.gate.score(features, logits))


def test_a_bundle_without_certificate_head_or_memory_is_a_bundle(tmp_path: Path) -> None:
    found = round_trip(bundle(large_head=None, certificates={}, metrics={}), tmp_path)
    assert (found.large_head, found.certificates, found.metrics, found.learner_state) == (None, {}, {}, {})


@pytest.mark.parametrize("farthest", [2.5, None])
def test_what_the_certify_rows_say_comes_back(tmp_path: Path, farthest: float | None) -> None:
    reference, rows_RD = NoveltyReference(threshold=0.5, limit=0.1, farthest=farthest), torch.randn(7, FEATURES)
    read = round_trip(bundle(novelty=reference, certify_rows=rows_RD), tmp_path)
    assert read.novelty == reference
    assert read.certify_rows is not None
    assert (read.certify_rows == rows_RD).all()
    without = round_trip(bundle(), tmp_path / "without")
    assert without.novelty is without.certify_rows is None


def test_no_file_is_a_pickle(tmp_path: Path) -> None:
    folder = bundle(learner_state={"memory": {"features": torch.ones(2)}}).write(tmp_path / "bundle")
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    for path in files:
        with pytest.raises(ValueError):  # noqa: PT011  any complaint of the disassembler will do
            pickletools.dis(path.read_bytes(), out=io.StringIO())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_names": ("bad", "good")}, "2 label names for a collaborator of 3 labels"),
        ({"task_names": ("tweets",)}, "tasks that are not in the sequence: movies"),
        ({"policy": Policy(gate="signals")}, "the bundle lacks its head: .*needs its fitted head"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        bundle(**changes)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    original = bundle()
    object.__setattr__(original.collaborator, "network", NetworkConfig(hidden=(5,)))
    with pytest.raises(ArtefactError, match=r"weights of another network.*judge\.safetensors"):
        round_trip(original, tmp_path)


def test_bundle_carries_fitted_words(tmp_path: Path) -> None:
    """Promise: a bundle whose encoder reads words answers the same once the run that fitted them is gone."""
    run, texts = tmp_path / "run", ["a cat sat", "a cat ran", "the cat sat", "the dog ran", "a dog sat"]
    run.mkdir()
    words = fit_words(texts)
    assert words is not None
    words.save(run)
    encoder = TextEncoderConfig(model=str(save_bert(tmp_path / "bert", ("a", "cat")))).aligned(run)
    dim = encoder.load(tmp_path).dim
    network = NetworkConfig(hidden=(), basis="pspline", mixing=8, grid_size=4, spline_order=2)
    original = bundle(
        encoder=encoder,
        encoder_identity=encoder.identity(tmp_path),
        collaborator=Collaborator(dim, len(LABELS), network, "kan", seed=3, num_words=words.num_topics).eval(),
        policy=Policy(),
        certificates={},
    )
    before = SmallSide(original, encoder.build(tmp_path)).judge([Input(Content(text)) for text in texts])
    original.write(tmp_path / "first")
    shutil.rmtree(run)
    again = Bundle.read(Bundle.read(tmp_path / "first").write(tmp_path / "again"))
    after = load_small_side(again, tmp_path).judge([Input(Content(text)) for text in texts])
    for ours, theirs in zip(after, before, strict=True):
        assert isinstance(ours, Judgement)
        assert isinstance(theirs, Judgement)
        assert ours.probabilities_C == pytest.approx(theirs.probabilities_C)
    assert again.collaborator.num_words == words.num_topics
