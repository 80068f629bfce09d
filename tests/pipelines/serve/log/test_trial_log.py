"""Promise: a trial is read from the log as it happened, with what is not known on the safe side."""

from collections.abc import Iterator

import numpy as np
import pytest

from kcm.bundle.answers import Route
from kcm.certification.monitoring.trial import Requests
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import LoggedDecision, Origin
from pipelines.serve.log.trial import TrialLog

NOT_ASKED = "not asked"


class Traffic:
    """Writes decisions as the door does."""

    def __init__(self, url: str) -> None:
        self.log, self._url, self._number = DecisionLog(url, 30.0, "films"), url, 0

    def request(
        self,
        *items: tuple[Route, str, str | None],
        version: str = "one",
        share: float = 0.5,
        stage: int | None = 1,
        seconds: float = 0.1,
        application: str = "films",
    ) -> str:
        """Items as (route, small label, large label): NOT_ASKED for no audit, None for an answer that has not come."""
        self._number += 1
        name = f"r{self._number}"
        log = self.log if application == "films" else DecisionLog(self._url, 30.0, application)
        log.add_decisions(
            [
                LoggedDecision(
                    Origin(name),
                    index,
                    version,
                    route,
                    share,
                    route == "small" and large != NOT_ASKED,
                    small_label=small,
                    large_label=large if route == "large" else None,
                    stage=stage,
                    seconds=seconds,
                )
                for index, (route, small, large) in enumerate(items)
            ]
        )
        for index, (route, _, large) in enumerate(items):
            if route == "small" and large not in (NOT_ASKED, None):
                log.finish_audits(name, {index: large})
        return name


@pytest.fixture
def traffic(any_url: str) -> Iterator[Traffic]:
    traffic = Traffic(any_url)
    yield traffic
    traffic.log.close()


def read(url: str) -> Requests:
    log = TrialLog(url, 10.0, "films")
    try:
        return log.read(0, "two")
    finally:
        log.close()


def test_challenger_loses_kept_items_of_other_large_labels(any_url: str, traffic: Traffic) -> None:
    """Promise: a challenger loses kept items on which the large model says otherwise."""
    kept: Route = "small"
    traffic.request((kept, "good", "bad"), version="two", stage=1, share=1.0, seconds=0.3)
    traffic.request((kept, "good", "good"), ("large", "good", "bad"), version="two", stage=1, share=1.0)
    traffic.request((kept, "good", "bad"), (kept, "good", NOT_ASKED), version="two", stage=2, share=0.25)
    traffic.request((kept, "good", None), version="two", stage=2, share=0.25)
    found = read(any_url)
    assert found.stage.tolist() == [1, 1, 2, 2]
    assert found.num_items.tolist() == [1, 2, 2, 1]
    assert found.lost_low.tolist() == [1.0, 0.0, 2.0, 0.0]
    assert found.lost_high.tolist() == [1.0, 0.0, 2.0, 4.0]
    assert found.share.tolist() == [1.0, 1.0, 0.25, 0.25]
    assert found.seconds.tolist() == [0.3, 0.1, 0.1, 0.1]
    assert (found.num_decisions(1), found.num_decisions(2)) == (3, 3)


def test_failed_requests_stand_in_their_stage(any_url: str, traffic: Traffic) -> None:
    traffic.request(("small", "good", "good"), version="two", stage=1, share=1.0)
    traffic.request(("small", "good", "good"), version="two", stage=2, share=1.0)
    traffic.log.add_failure("lost", "two", 1, 503)
    traffic.log.add_failure("another's", "three", 1, 503)
    found = read(any_url)
    assert (found.stage.tolist(), found.failed.tolist()) == ([1, 1, 2], [False, True, False])
    assert np.isnan(found.seconds[1])


def test_other_applications_and_earlier_decisions_are_ignored(any_url: str, traffic: Traffic) -> None:
    """Promise: other applications versions and earlier decisions are left out."""
    traffic.request(("small", "good", NOT_ASKED), version="two")
    log = TrialLog(any_url, 10.0, "films")
    after = log.last_number()
    traffic.request(("small", "good", NOT_ASKED), version="two", application="songs")
    traffic.request(("small", "good", NOT_ASKED), version="two", stage=None)
    traffic.request(("small", "good", NOT_ASKED), version="one")
    assert (after, len(log.read(after, "two")), len(log.read(0, "two"))) == (1, 0, 1)
    log.close()


def test_slowest_requests_are_those_of_own_callers(any_url: str, traffic: Traffic) -> None:
    """Promise: a request counts once, however many items it has, and with or without a trial."""
    kept = ("small", "good", NOT_ASKED)
    log = TrialLog(any_url, 10.0, "films")
    assert log.slowest("one", 0.99) is None
    traffic.request(*[kept] * 7, seconds=0.1)
    for seconds in (0.2, 0.3):
        traffic.request(kept, seconds=seconds, stage=None)
    traffic.request(kept, seconds=5.0, version="two")
    traffic.request(kept, seconds=5.0, application="songs")
    assert (log.slowest("one", 0.5), log.slowest("one", 0.99)) == (0.2, 0.3)
    log.close()


def test_without_audits_nothing_is_known_of_what_was_lost(any_url: str, traffic: Traffic) -> None:
    traffic.request(("small", "good", NOT_ASKED), version="two", stage=1, share=0.0)
    found = read(any_url)
    assert (found.lost_low.tolist(), found.lost_high.tolist(), found.share.tolist()) == ([0.0], [1.0], [1.0])
