"""People are asked about a few drawn disagreements, and what they say certifies the challenger, or is refused whole."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kcm.cascade.policy import KEEP_ALL
from kcm.certification.certificate import CertificateConfig
from pipelines.loop.recertify import certify_window
from pipelines.serve.log.decisions import DecisionLog
from tests.pipelines.loop.windows import NUM, START, Asked, facts_of, judged_of, made_inbox, made_window


@pytest.fixture(scope="module")
def window() -> pa.Table:
    return made_window(NUM, rate=0.05)


@pytest.fixture
def asked(tmp_path: Path, window: pa.Table) -> Iterator[Asked]:
    asked = made_inbox(tmp_path, window)
    yield asked
    asked.inbox.close()


def test_what_is_drawn_is_written_down_once_in_its_order(asked: Asked) -> None:
    number = asked.inbox.fill()
    assert 20 < number < 200
    items = asked.inbox.items()
    assert [each.position for each in items] == list(range(number))
    assert items[0].text == f"the text of {items[0].id.removesuffix('/0')}"
    asked.inbox.answer({items[0].id: "no"})
    assert asked.again().fill() == number
    assert asked.again().items()[0].label == "no"
    assert len(asked.inbox.items("drawn", limit=5)) == 5


def test_labels_certify_step_by_step_and_the_certificate_says_the_same(asked: Asked) -> None:
    asked.inbox.fill()
    rng = np.random.default_rng(0)
    start = asked.inbox.standing()
    assert not start.certified
    assert start.bound > 0.02
    bounds, labels = [start.bound], 0
    for each in asked.inbox.items():
        asked.inbox.answer({each.id: "no" if rng.random() < 0.05 else "yes"})
        labels += 1
        if labels % 10 == 0:
            bounds.append(asked.inbox.standing().bound)
            if asked.inbox.standing().certified:
                break
    standing = asked.inbox.standing()
    assert standing.certified
    assert standing.num_open > 0  # no further label is needed
    assert standing.num_labelled == labels < 80
    assert bounds == sorted(bounds, reverse=True)
    policy, certificates = certify_window(
        judged_of(asked.window),
        asked.inbox.plan.policy,
        CertificateConfig(),
        facts_of(asked.window),
        delta=0.06,
        expires_at=START,
        labels=asked.inbox.given(),
    )
    assert policy.decision == KEEP_ALL
    assert certificates[None].bound == pytest.approx(standing.bound)


def test_the_service_says_of_the_labels_what_the_loop_says(asked: Asked) -> None:
    """Promise: the page tells what the labels certify, by the log alone."""
    asked.inbox.fill()
    asked.inbox.ask()
    log = DecisionLog(asked.url, 30.0, "reviews")
    for number in (0, 10, 30):
        asked.inbox.answer({each.id: "yes" for each in asked.inbox.items("drawn", number)})
        view = log.inbox(3)
        assert view is not None
        assert view.standing == asked.inbox.standing()
    log.close()
