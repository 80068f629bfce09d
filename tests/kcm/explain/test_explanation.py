"""A decision and its reasons, from judgements that anyone may have made."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from kcm.bundle.answers import Input
from kcm.bundle.runtime import SmallSide
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.explain.explanation import WORDS, explain, variants
from kcm.inputs.content import TEXT, Content
from tests.kcm.bundle.test_bundle import bundle

DIM, KEEPS = 8, Policy(decision=KEEP_ALL)


class CountingEncoder:
    """Feature i is how often the i-th of these words occurs."""

    dim, reads, identity = DIM, TEXT, "counting"
    words = ("good", "bad", "not", "very", "film", "book", "the", "a")

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        return np.array([[example.text.split().count(word) for word in self.words] for example in inputs], np.float32)


def side_of(kind: str = "kan", **network: Any) -> SmallSide:
    collaborator = Collaborator(DIM, 2, NetworkConfig(**{"hidden": ()} | network), kind, seed=0)  # type: ignore[arg-type]
    return SmallSide(
        bundle(collaborator=collaborator.requires_grad_(False), label_names=("negative", "positive"), policy=KEEPS),
        CountingEncoder(),
    )


QUADRATIC = {"basis": "quadratic", "mixing": 12}


@pytest.mark.parametrize(("kind", "network"), [("kan", {}), ("kan", QUADRATIC), ("mlp", {})])
def test_what_class_means_add_is_named_and_counted(kind: str, network: dict[str, Any]) -> None:
    side = side_of(kind, base="means", **network)
    collaborator = side.bundle.collaborator
    rows = torch.eye(DIM)[:2]
    collaborator.base.add(collaborator.base.sums_of([(rows, torch.tensor([1, 0]))]))
    given = Input(Content("a good film"))
    found = explain(side.bundle, given, side.judge(variants(given)))
    features = torch.tensor(side.encoder.encode([given.content]))
    logits = collaborator(features)[0][0]
    assert found.judge_label == side.bundle.label_names[int(logits.argmax())] == "positive"
    assert [word for word, _ in found.words] == ["a", "good", "film"]
    assert found.strongest_words[0][1] == max((effect for _, effect in found.words), key=abs)
    _, without_good = found.words[1]
    left = torch.tensor(side.encoder.encode([Content("a film")]))
    assert without_good == pytest.approx(float(logits[1] - collaborator(left)[0][0, 1]), abs=1e-5)
    assert len(found.reasons) == 2 * (kind == "kan")
    for reasons in found.reasons.values():
        names = {each.name for each in reasons.contributions}
        assert any(name.startswith("direction ") for name in names) == bool(network)
        assert any(name.startswith("feature ") for name in names)
        assert reasons.base == pytest.approx(20 * (3**-0.5 - 0.5), abs=1e-5)
        added = sum(each.contribution for each in reasons.contributions) + reasons.rest
        assert reasons.logit == pytest.approx(float(logits[1]), abs=1e-5)
        assert reasons.logit == pytest.approx(reasons.baseline + reasons.base + added, abs=1e-5)


def test_variants_leave_out_one_word_each() -> None:
    example = Input(Content("not  a\tgood film"), "films")
    texts = ["not  a\tgood film", "a good film", "not good film", "not a film", "not a good"]
    assert variants(example) == [Input(Content(text), "films") for text in texts]
    assert variants(example, max_words=2) == [Input(Content(text), "films") for text in texts[:3]]
    assert variants(Input(Content("word"))) == [Input(Content("word"))]
    assert len(variants(Input(Content("word " * 500)))) == WORDS + 1


def test_a_feature_names_the_word_that_moves_it_and_the_rest_is_counted() -> None:
    """Promise: an explanation says which word a feature stands for, and how much of the logit it leaves out."""
    side, example = side_of(base="none"), Input(Content("not a good film"))
    for reasons in explain(side.bundle, example, side.judge(variants(example)), top=3).reasons.values():
        for each in reasons.contributions:
            occurs = CountingEncoder.words[each.feature] in example.content.text.split()
            assert not occurs or each.word == CountingEncoder.words[each.feature]
        assert reasons.num_others == DIM - 3
        assert 0 < reasons.unlisted < 1 - 3 / DIM


def test_both_networks_are_explained_by_their_own_answers() -> None:
    side, example = side_of(hidden=(4,)), Input(Content("not a good film"))
    explanation = explain(side.bundle, example, side.judge(variants(example)), top=3)
    assert explanation.reasons.keys() == {"judge", "small"}
    assert [len(reason.contributions) for reason in explanation.reasons.values()] == [3, 3]
    assert explanation.label == side.bundle.label_names[explanation.reasons["small"].label]
    assert explain(side.bundle, Input(Content("film")), side.judge([Input(Content("film"))])).words == ()
