"""A turn promotes what passed, keeps the reasons of what did not, goes on where it was killed, and works alone."""

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import ray

from kcm.bundle.frozen_models import bundle_digest
from kcm.config import load_config
from kcm.errors import ArtefactError, DataError, KcmError, LockedError
from pipelines.config import RunConfig
from pipelines.loop import build
from pipelines.loop import turn as turns
from pipelines.loop.attempts import UpdateAttempt
from pipelines.loop.build import BuiltChallenger
from pipelines.loop.state import LoopState
from pipelines.loop.turn import approve, update
from pipelines.registry.champion import Champion
from pipelines.registry.gates import PromotionGate, Verdict
from pipelines.registry.promote import Champions
from pipelines.registry.replicas import RefusedByServiceError
from pipelines.stages.parent import Parent
from pipelines.store.lease import leased
from pipelines.tracking.tracking import Tracking, set_champion
from tests.champions import alias_of

CONFIG = Path(__file__).parents[3] / "jobs/configs/reviews.yaml"
LABELS = {"r1/0": "good"}
UPDATED = ["train.mask_unseen=true", "serve.feedback.store_payloads=text", "update={}"]


@dataclass
class Loop:
    """An application with a champion, whose challengers are made up: `verdicts` are those of the next ones."""

    config: RunConfig
    state: LoopState
    verdicts: list[Verdict] = field(default_factory=list)
    watermark: int = 500
    built: list[str] = field(default_factory=list)
    fault: BaseException | None = None

    @property
    def champion(self) -> str:
        return self.state.champions.present().champion.version

    @property
    def alias(self) -> str:
        return alias_of(self.state.champions.uri, self.config.name)

    def register(self, name: str) -> Champion:
        """A registered version."""
        storage = self.config.storage_path
        bundle = storage / name
        bundle.mkdir(exist_ok=True)
        (bundle / "bundle.json").write_text(name)
        tracking = Tracking.open(self.config.tracking, storage, name=self.config.name, key=name)
        number = tracking.register(self.config.name, bundle, fingerprint=name)
        return Champion(version=f"{self.config.name}/{number}", digest=bundle_digest(bundle), bundle=name, by="run")

    def build(
        self, config: RunConfig, state: LoopState, attempt: UpdateAttempt, labels: object, reporter: object
    ) -> BuiltChallenger:
        self.built.append(attempt.name)
        if self.fault:
            raise self.fault
        verdict = self.verdicts[-1] if self.verdicts else "pass"
        candidate = self.register(attempt.name).model_copy(update={"parent": attempt.champion})
        return BuiltChallenger(
            [PromotionGate(name="rows", verdict=verdict, reason=f"it is {verdict}")],
            candidate,
            {"labels": 3},
        )


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loop:
    config = load_config(RunConfig, CONFIG, [f"storage_path={tmp_path}", *UPDATED])
    made = Loop(config, LoopState.of(config))
    made.state.champions.introduce(made.register("first"))
    monkeypatch.setattr(build, "build_challenger", made.build)
    monkeypatch.setattr(turns, "watermark_of", lambda _: made.watermark)
    monkeypatch.setattr(turns, "window_start", lambda _, champion: champion.after)
    return made


def with_update(loop: Loop, **changes: object) -> RunConfig:
    return loop.config.model_copy(update={"update": loop.config.update.model_copy(update=changes)})


def test_passing_challenger_becomes_champion_in_loop_json(loop: Loop) -> None:
    """Promise: a challenger that passes becomes the champion and loop json tells of it."""
    result = update(loop.config)
    assert (result["changed"], result["promoted"], result["version"]) == (True, True, "reviews/2")
    assert (loop.champion, loop.alias) == ("reviews/2", "2")
    state = json.loads(Path(result["result_path"]).read_text())
    (turn,) = state["turns"]
    assert turn["promoted"]
    assert turn["labels"] == 3
    assert turn["gates"]["rows"]["verdict"] == "pass"
    assert turn["seconds"] >= 0
    assert "reviews/2" in Path(result["report_path"]).read_text()
    assert state["champion"]["parent"] == loop.state.champions.pointer.history()[0].digest


def test_where_nothing_is_new_a_turn_says_so_and_starts_nothing(loop: Loop) -> None:
    """Promise: without new decisions a turn starts no cluster; it only corrects an alias that somebody moved."""
    loop.verdicts = ["fail"]
    assert update(loop.config)["reason"] == "it is fail"
    assert (loop.champion, loop.alias) == ("reviews/1", "1")
    set_champion(loop.state.champions.uri, loop.config.name, "2")
    result = update(loop.config)
    assert loop.alias == "1"
    assert (result["changed"], result["champion"]) == (False, "reviews/1")
    assert "nothing is new in the log since decision 500" in result["reason"]
    assert len(loop.built) == 1
    assert not ray.is_initialized()


@pytest.mark.parametrize("changes", [{"min_large_answers": 7}, {"every_s": 5.0}])
def test_learning_configuration_change_makes_a_new_attempt(loop: Loop, changes) -> None:
    """Promise: another configuration makes another attempt where it changes what is learned."""
    loop.verdicts = ["fail"]
    update(loop.config)
    assert update(with_update(loop, **changes))["changed"] == ("min_large_answers" in changes)


def test_turn_killed_after_the_swap_reports_the_promotion(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a turn that was killed after the swap tells of the promotion when it goes on."""
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.registry.promote.set_champion", killed_before("2"))
        with pytest.raises(KeyboardInterrupt):
            update(loop.config)
    assert loop.alias == "1"
    loop.watermark = 900
    result = update(loop.config)
    assert (result["promoted"], result["version"]) == (True, "reviews/2")
    assert (loop.champion, loop.alias) == ("reviews/2", "2")
    assert [each.by for each in loop.state.champions.pointer.history()] == ["run", "update"]


def test_second_concurrent_turn_names_the_first(loop: Loop) -> None:
    """Promise: of two turns at once one works and the other says who does."""
    what = leased(loop.state.store.control, "leases/loop/reviews", "the update of 'reviews'")
    with what, pytest.raises(LockedError, match=r"the update of 'reviews' is being written by process \d+ of"):
        update(loop.config)
    assert loop.built == []


@pytest.mark.parametrize(("approval", "verdict"), [("manual", "pass"), ("auto", "undecided")])
def test_what_a_person_has_to_decide_waits_for_approval(loop: Loop, approval: str, verdict: Verdict) -> None:
    loop.verdicts = [verdict]
    config = with_update(loop, approval=approval)
    result = update(config)
    assert (result["promoted"], result["awaits_approval"], loop.champion) == (False, True, "reviews/1")
    assert approve(config, "2")["promoted"]
    assert loop.champion == "reviews/2"
    (turn,) = json.loads(loop.state.path.read_text())["turns"]
    assert (turn["promoted"], turn["awaits_approval"]) == (True, False)
    with pytest.raises(KcmError, match="version 2 does not wait for approval"):
        approve(config, "2")


def test_challenger_that_a_replica_refuses_is_not_promoted(loop: Loop) -> None:
    """Promise: a challenger that a replica refuses is never promoted automatically again; the champion stays."""

    def refused(*_: object) -> bool:
        raise RefusedByServiceError("the version is refused: it does not load")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Champions, "_followed_by_replicas", refused)
        result = update(loop.config)
    assert (result["promoted"], loop.champion) == (False, "reviews/1")
    assert "it does not load" in result["reason"]
    assert loop.state.champions.pointer.rejected(result["digest"])


def test_stopped_challenger_is_not_promoted_automatically(loop: Loop) -> None:
    """Promise: a challenger that must not be served is never promoted by itself."""
    result = update(loop.config, lambda _: "its certificate is void")
    assert (result["promoted"], loop.champion) == (False, "reviews/1")
    rolled_back = json.loads(loop.state.path.read_text())["rolled_back"]
    assert (rolled_back["version"], rolled_back["reason"]) == ("reviews/2", "its certificate is void")
    loop.verdicts = ["pass"]
    again = update(with_update(loop, min_large_answers=1))  # another attempt, from the same watermark
    assert not again["promoted"]
    assert "was stopped before: its certificate is void" in again["reason"]


def test_a_champion_that_changed_meanwhile_is_left(loop: Loop) -> None:
    other = loop.register("other")

    def objection(candidate: Champion) -> str:
        raise AssertionError("nobody asks whether it may be served")

    original: Callable[..., BuiltChallenger] = loop.build

    def slow(*given: object) -> BuiltChallenger:
        built = original(*given)
        loop.state.champions.introduce(other)
        return built

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build_challenger", slow)
        with pytest.raises(KcmError, match="reviews/2 became the champion while reviews/3 was being trained"):
            update(loop.config, objection)
    assert loop.champion == "reviews/2"


def test_the_time_of_day_decides_nothing(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a clock that jumps back years changes no window and no order."""
    monkeypatch.setattr("pipelines.loop.turn.utc_now", lambda: "1970-01-01T00:00:00+00:00")
    assert update(loop.config)["promoted"]
    loop.watermark = 900
    result = update(loop.config)
    assert (result["after"], result["upto"], loop.champion) == (500, 900, "reviews/3")


def test_labels_certify_the_challenger_anew_once(loop: Loop) -> None:
    """Promise: its networks are not trained again, and it may follow itself under another threshold."""
    with pytest.raises(DataError, match="there was no turn yet"):
        update(loop.config, labels=LABELS)
    first = update(loop.config)
    again = update(loop.config, labels=LABELS)
    assert (again["relabelled"], again["promoted"], loop.champion) == (True, True, "reviews/3")
    assert [again[end] for end in ("after", "upto")] == [first[end] for end in ("after", "upto")]
    assert not update(loop.config, labels=LABELS)["changed"]


def test_relabelled_turn_killed_after_its_promotion_is_recorded(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a promotion is in loop.json even though the labels of its turn are not collected a second time."""
    update(loop.config)
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.registry.promote.set_champion", killed_before("3"))
        with pytest.raises(KeyboardInterrupt):
            update(loop.config, labels=LABELS)
    result = update(loop.config)
    assert (result["promoted"], result["relabelled"], result["version"]) == (True, True, "reviews/3")
    assert (loop.champion, loop.alias, len(loop.built)) == ("reviews/3", "3", 2)
    turns = json.loads(loop.state.path.read_text())["turns"]
    assert [(turn["version"], turn["promoted"]) for turn in turns] == [("reviews/2", True), ("reviews/3", True)]
    assert not update(loop.config)["changed"]


def test_approval_killed_after_its_promotion_is_recorded_by_the_next_turn(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.verdicts = ["undecided"]
    update(loop.config)
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.registry.promote.set_champion", killed_before("2"))
        with pytest.raises(KeyboardInterrupt):
            approve(loop.config, "2")
    assert update(loop.config)["version"] == "reviews/2"
    (turn,) = json.loads(loop.state.path.read_text())["turns"]
    assert (turn["promoted"], turn["awaits_approval"]) == (True, False)


def killed_before(number: str) -> Callable[..., None]:
    """What dies instead of setting the alias to this version."""

    def set_champion(uri: str, model: str, version: str) -> None:
        if version == number:
            raise KeyboardInterrupt

    return set_champion


def test_full_disk_is_one_line_and_the_turn_resumes(loop: Loop) -> None:
    """Promise: a full disk is reported in a line and the turn goes on once there is room."""
    loop.fault = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ArtefactError, match=r"the disk is full.*Free some space and start again"):
        update(loop.config)
    loop.fault, loop.watermark = None, 900
    result = update(loop.config)
    assert (result["promoted"], result["upto"], len(set(loop.built))) == (True, 500, 1)


@pytest.mark.parametrize("fault", ["missing", "another"])
def test_missing_parent_bundle_stops_before_the_log_is_read(loop: Loop, fault: str) -> None:
    """Promise: a parent bundle that is not there stops the turn before it reads the log."""
    home = loop.config.storage_path / "artefacts" / "register" / "first"
    if fault == "another":
        (home / "attempt-1" / "bundle").mkdir(parents=True)
        (home / "attempt-1" / "bundle" / "bundle.json").write_text("another")
        (home / "manifest.json").write_text(json.dumps({"attempt": "attempt-1", "inputs": {}, "files": {}}))
    expected = (
        "the register artefact first is missing" if fault == "missing" else "the bundle of reviews/1 is another one"
    )
    with pytest.raises(ArtefactError, match=expected):
        Parent.of(loop.state.store, loop.state.champions.present().champion)


def test_interrupted_turn_ends_when_another_version_was_approved(loop: Loop) -> None:
    """Promise: an attempt whose champion was replaced by an approved challenger ends, and the next turn starts anew."""
    loop.verdicts = ["undecided"]
    update(loop.config)
    loop.verdicts, loop.watermark, loop.fault = ["pass"], 900, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        update(loop.config)
    loop.fault, loop.watermark = None, 1000
    assert approve(loop.config, "2")["promoted"]
    loop.watermark = 1100
    assert update(loop.config)["promoted"]
    assert (loop.champion, loop.state.attempts.turns()[-1]["after"]) == ("reviews/3", 1000)
