"""The pointer decides, and MLflow's alias follows it: after a crash, and after somebody moved it."""

from pathlib import Path

import pytest

from kcm.bundle.frozen_models import bundle_digest
from kcm.errors import KcmError
from pipelines.registry.champion import Champion, Pointer
from pipelines.registry.promote import Champions
from pipelines.registry.replicas import RefusedByServiceError, ReplicaReport
from pipelines.store.records import Control
from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.tracking import Tracking, set_champion
from tests.champions import alias_of


@pytest.fixture
def versions(tmp_path: Path) -> tuple[Champions, list[Champion]]:
    """An application without a champion, and three registered versions."""
    tracking = Tracking.open(TrackingConfig(), tmp_path, name="demo", key="key")
    found = []
    for name in ("a", "b", "c"):
        bundle = tmp_path / name
        bundle.mkdir()
        (bundle / "bundle.json").write_text(name)
        number = tracking.register("demo", bundle, fingerprint=name)
        found.append(Champion(version=f"demo/{number}", digest=bundle_digest(bundle), bundle=name, by="run"))
    return Champions(Pointer(Control(tmp_path / "control"), "demo"), tracking.uri, "demo"), found


def test_promoted_version_is_champion_and_alias_follows(versions) -> None:
    """Promise: a version of a run becomes the champion and the alias follows."""
    champions, (a, *_) = versions
    with pytest.raises(KcmError, match="'demo' has no champion"):
        champions.write_alias()
    champions.introduce(a)
    assert champions.present().champion == a
    assert alias_of(champions.uri, "demo") == a.number == "1"


def test_alias_left_by_a_crash_follows(versions) -> None:
    """Promise: an alias that a crash left behind follows with the next command."""
    champions, (a, b, _) = versions
    champions.introduce(a)
    assert champions.pointer.swap(1, b)  # and the process dies
    assert alias_of(champions.uri, "demo") == a.number
    assert champions.write_alias().champion == b
    assert alias_of(champions.uri, "demo") == b.number


def test_alias_moved_by_hand_is_written_anew(versions) -> None:
    """Promise: the pointer decides; a run that promotes nothing corrects an alias that was moved by hand."""
    champions, (a, _, c) = versions
    champions.introduce(a)
    set_champion(champions.uri, "demo", c.number)
    champions.introduce(a)
    assert champions.present().champion == a
    assert alias_of(champions.uri, "demo") == a.number


@pytest.mark.parametrize("refuses", [True, False])
def test_a_promotion_that_a_replica_refuses_is_taken_back(versions, refuses: bool) -> None:
    """Promise: a version that does not work where it is to be served does not stay the champion."""
    champions, (a, b, _) = versions
    champions.introduce(a)
    reports = champions.pointer.reports
    refused = {b.version: "no such encoder"} if refuses else {}
    reports.write("replica-1", ReplicaReport(record=2, version=(a if refuses else b).version, refused=refused))
    if not refuses:
        assert champions.promote(b, expected=1)
        return
    with pytest.raises(RefusedByServiceError, match="version demo/2 is refused: no such encoder"):
        champions.promote(b, expected=1)
    assert champions.present().champion == a
    assert champions.pointer.history() == [a]


def test_second_of_two_concurrent_promotions_changes_nothing(versions) -> None:
    """Promise: of two promotions from one champion the second changes nothing."""
    champions, (a, b, c) = versions
    champions.introduce(a)
    champions.promote(b, expected=1)
    with pytest.raises(KcmError, match=f"another version became the champion while {c.version}"):
        champions.promote(c, expected=1)
    assert champions.present().champion == b
