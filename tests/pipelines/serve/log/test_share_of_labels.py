"""Promise: one caller who lies about thousands of items moves window, bounds and alarm by a share of the labels."""

from collections import Counter
from contextlib import closing
from typing import Any

import pytest

from kcm.inputs.content import Content
from kcm.tasks.units import unit_digest
from pipelines.serve.config import FeedbackConfig
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin
from pipelines.serve.log.monitor import Monitor
from pipelines.serve.log.window import LogReader
from pipelines.serve.log.writer import LogWriter
from tests.kcm.bundle.test_bundle import certificate
from tests.pipelines.serve.stubs import NoMetrics

SHARE, LIES = 0.2, 120
TRUTHS = {"ann": 30, "bob": 10}


def answered(log: DecisionLog, caller: str, number: int, label: str) -> None:
    """Kept and audited items of a caller whose large answer is `good`, and the caller's labels of them."""
    log.add_decisions(
        [
            LoggedDecision(
                Origin(f"{caller}{item}", caller),
                0,
                "films/1",
                "small",
                1.0,
                drawn=True,
                small_label="bad",
                gate_score=1.0,
                unit=unit_digest(Content("the same text"), f"group {item}"),  # cloned under another group each
            )
            for item in range(number)
        ]
    )
    for item in range(number):
        log.finish_audits(f"{caller}{item}", {0: "good"})
        log.add_feedback(f"{caller}{item}", caller, [Feedback(0, label)])


@pytest.fixture
def url(any_url: str) -> str:
    """A log in which eve says of each item that the large model is right, others that the small one is."""
    with closing(DecisionLog(any_url, 30.0, "films")) as log:
        for caller, number in TRUTHS.items():
            answered(log, caller, number, "bad")
        answered(log, "eve", LIES, "good")
    return any_url


def counted(url: str, after: int, upto: int, max_share: float = SHARE) -> Counter[str]:
    with LogReader(url, "films") as reader:
        window = reader.window(after, upto, max_share)
    return Counter(label for label in window["label"].to_pylist() if label)


def test_every_window_and_the_bounds_hold_a_share_of_one_caller_s_labels(url: str) -> None:
    number = sum(TRUTHS.values())
    assert counted(url, 0, 1000) == {"bad": number, "good": number // 4}
    assert counted(url, 0, 1000, 1.0) == {"bad": number, "good": LIES}

    assert counted(url, 0, 140) == {"bad": 27 + 10, "good": 10}  # of ann, too, who gave 30 of 140
    assert counted(url, 40, 140) == {"good": 100}  # nobody else gave a label

    with closing(DecisionLog(url, 30.0, "films", SHARE)) as log:
        known = Counter[Any]()
        for tally in log.tallies("films/1"):
            known[tally.large_right] += tally.number
        assert known == {False: 40, True: 10, None: LIES - 10}
        lost = sum(event.lost for event in log.events("films/1", 0, 1000, label_free=False))
        assert lost == 10


@pytest.mark.parametrize(("max_share", "refuted"), [(SHARE, False), (1.0, True)])
async def test_the_alarm_of_a_certificate_is_not_theirs_to_give(any_url: str, max_share: float, refuted: bool) -> None:
    with closing(DecisionLog(any_url, 30.0, "films")) as log:
        for caller, number in {"ann": 30, "bob": 30, "carl": 30, "dora": 30}.items():
            answered(log, caller, number, "bad")
        answered(log, "eve", LIES, "good")
    writer = LogWriter(FeedbackConfig(max_share_per_caller=max_share, timeout_s=10.0), any_url, application="films")
    promise = certificate().model_copy(update={"epsilon": 0.3, "method": "regret"})
    nothing: Any = NoMetrics()
    monitor = Monitor(writer, "films/1", promise, nothing)
    bounds = await monitor.check()
    writer.close()
    assert bounds is not None
    assert bounds.alarm == refuted
