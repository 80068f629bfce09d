"""People are asked about a few drawn disagreements, and what they say certifies the challenger, or is refused whole."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kcm.cascade.policy import KEEP_ALL
from kcm.certification.certificate import CertificateConfig
from kcm.errors import DataError
from pipelines.loop.window.certify import certify_window
from pipelines.serve.log.decisions import DecisionLog
from tests.pipelines.loop.windows import NUM, START, Asked, facts_of, judged_of, made_drawn, made_window


@pytest.fixture(scope="module")
def window() -> pa.Table:
    return made_window(NUM, rate=0.05)


@pytest.fixture
def asked(tmp_path: Path, window: pa.Table) -> Iterator[Asked]:
    asked = made_drawn(tmp_path, window)
    yield asked
    asked.drawn.log.close()


def test_same_items_are_drawn_with_their_probabilities(asked: Asked) -> None:
    """Promise: an item whose large answer was asked for with probability pi is drawn with 0.2 / pi."""
    items = asked.drawn.items()
    assert 20 < len(items) < 200
    assert items[0].text == f"text {items[0].id.removeprefix('r').removesuffix('/0')}"
    asked.drawn.answer({items[0].id: "no"})
    again = replace(asked.drawn).items()
    assert [(each.id, each.probability) for each in again] == [(each.id, each.probability) for each in items]
    assert [each.label for each in again] == ["no", *[None] * (len(items) - 1)]
    names = (f"{name}/0" for name in asked.window["request_id"].to_pylist())
    asked_for = dict(zip(names, asked.window["probability"].to_pylist(), strict=True))
    assert all(each.probability == pytest.approx(0.2 / asked_for[each.id]) for each in items)


def test_a_bad_answer_among_others_stores_nothing(asked: Asked) -> None:
    first, second, *_ = asked.drawn.probabilities
    for bad, label in (("r9999999/0", "yes"), (second, "perhaps")):
        with pytest.raises(DataError):
            asked.drawn.answer({first: "yes", bad: label})
    assert asked.drawn.standing().num_labelled == 0


def test_what_is_forgotten_is_asked_for_no_more(asked: Asked) -> None:
    first, *rest = asked.drawn.probabilities
    asked.drawn.answer({first: "yes"})
    log = DecisionLog(asked.url, 30.0, "reviews")
    log.forget_request(first.removesuffix("/0"))
    log.close()
    again = replace(asked.drawn)
    assert list(again.states()) == rest
    with pytest.raises(DataError, match="this item needs no label"):
        again.answer({first: "yes"})


def test_labels_certify_step_by_step_like_the_certificate(asked: Asked) -> None:
    """Promise: labels certify step by step and the certificate says the same."""
    rng = np.random.default_rng(0)
    start = asked.drawn.standing()
    assert not start.certified
    assert start.bound > 0.02
    bounds, labels = [start.bound], 0
    for each in asked.drawn.items():
        asked.drawn.answer({each.id: "no" if rng.random() < 0.05 else "yes"})
        labels += 1
        if labels % 10 == 0:
            bounds.append(asked.drawn.standing().bound)
            if asked.drawn.standing().certified:
                break
    standing = asked.drawn.standing()
    assert standing.certified
    assert standing.num_open > 0  # no further label is needed
    assert standing.num_labelled == labels < 80
    assert bounds == sorted(bounds, reverse=True)
    policy, certificates = certify_window(
        judged_of(asked.window),
        asked.drawn.plan.policy,
        CertificateConfig(),
        facts_of(asked.window),
        delta=0.06,
        expires_at=START,
        labels=asked.drawn.given(),
    )
    assert policy.decision == KEEP_ALL
    assert certificates[None].bound == pytest.approx(standing.bound)
