"""An attempt is written down before it works: a killed one goes on with its window, a finished one is not repeated."""

from pathlib import Path
from typing import Any

import pytest

from kcm.errors import DataError
from pipelines.loop.attempts import Attempts
from pipelines.registry.champion import Champion
from pipelines.store.records import Control

CHAMPION = Champion(digest="one", version="demo/1", bundle="f", promoted_at="", after=100, by="run")
NEXT = CHAMPION.model_copy(update={"digest": "two", "version": "demo/2", "after": 340, "parent": "one", "by": "update"})


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(Control(tmp_path), "demo")


def begin(attempts: Attempts, champion: Champion, after: int, watermark: int, configuration: str) -> Any:
    """The attempt that is due, which begins to work; None where none is."""
    attempt = attempts.due(champion, after, watermark, configuration)
    if attempt is not None:
        attempts.open(attempt)
    return attempt


@pytest.mark.parametrize(
    ("champion", "configuration"),
    [
        (CHAMPION, "other"),
        (CHAMPION.model_copy(update={"after": 200}), "c"),  # promoted once more, to begin a new window
        (NEXT.model_copy(update={"by": "promote"}), "c"),
    ],
)
def test_interrupted_attempt_is_dropped_after_a_change(
    attempts: Attempts, champion: Champion, configuration: str
) -> None:
    """Promise: an interrupted attempt is given up where champion or configuration changed."""
    begin(attempts, CHAMPION, CHAMPION.after, 300, "c")
    assert begin(attempts, champion, champion.after, 900, configuration).upto == 900


def test_a_finished_attempt_is_not_repeated_until_the_log_grows(attempts: Attempts) -> None:
    first = begin(attempts, CHAMPION, CHAMPION.after, 300, "c")
    attempts.close(first.name, {"promoted": False})
    assert begin(attempts, CHAMPION, CHAMPION.after, 300, "c") is None
    assert begin(attempts, CHAMPION, CHAMPION.after, 301, "c").upto == 301


def test_a_refused_attempt_starts_anew_or_with_a_longer_window(attempts: Attempts) -> None:
    """What was refused may have been mended since: a bundle put back, or traffic that had been missing."""
    first = begin(attempts, CHAMPION, CHAMPION.after, 300, "c")
    attempts.refuse(first.name, "the parent bundle is missing")
    assert begin(attempts, CHAMPION, CHAMPION.after, 300, "c") == first
    attempts.refuse(first.name, "too few decisions")
    assert begin(attempts, CHAMPION, CHAMPION.after, 900, "c").upto == 900
    assert attempts.turns() == []


def test_a_log_that_ends_before_the_last_promotion_is_refused(attempts: Attempts) -> None:
    with pytest.raises(DataError, match="the log ends at decision 99, the window begins after 100"):
        begin(attempts, CHAMPION, CHAMPION.after, 99, "c")
