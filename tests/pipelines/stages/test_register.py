"""A version becomes the champion by itself if it saves something, and is not worse than the present champion."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from kcm.cascade.policy import ESCALATE_ALL, Decision, Policy
from kcm.config import parse_config
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.progress import Reporter
from pipelines.registry.champion import Pointer
from pipelines.registry.gates import PromotionGate, Verdict
from pipelines.stages import register
from pipelines.stages.parent import BundleArtefact
from pipelines.stages.register import Register
from pipelines.store.artefact import ArtefactStore
from tests.pipelines.stages.test_controls import RUN

KEEPS, SAVES_NOTHING = Policy(decision=Decision(decision="threshold", threshold=0.5)), Policy(decision=ESCALATE_ALL)


class Published:
    """The stage's last step, with a registry that numbers its versions and champions that are real."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.policy, self.verdict, self.asked = folder, KEEPS, "pass", 0
        self.pointer = Pointer(ArtefactStore(folder).control, "reviews")
        bundles = SimpleNamespace(read=lambda _: SimpleNamespace(policy=self.policy, certificates={}))
        monkeypatch.setattr(register, "Bundle", bundles)
        monkeypatch.setattr(register, "bundle_digest", lambda path: path.parent.name)
        monkeypatch.setattr(register, "without_traffic", self._gates)
        monkeypatch.setattr(register.Version, "of", lambda artefact, bundle: artefact.fingerprint)
        monkeypatch.setattr(ArtefactStore, "named", lambda store, stage, name: self.artefact(name))
        monkeypatch.setattr(register, "register_model", lambda tracking, model, bundle, name: name)
        self.alias = ""
        monkeypatch.setattr("pipelines.registry.promote.set_champion", lambda *at: setattr(self, "alias", at[-1]))

    def __call__(self, version: str, *, promote: bool | None = None) -> dict[str, Any]:
        """Publish a version, and tell what became of it."""
        context = Context(
            "reviews", ArtefactStore(self.folder), self.folder, reporter=Reporter(Console(quiet=True)), promote=promote
        )
        context.tracking = SimpleNamespace(uri="sqlite:///none")  # type: ignore[assignment]
        Register.of(parse_config(RunConfig, RUN)).publish(self.artefact(version), context)
        assert context.promotion is not None
        return context.promotion

    def artefact(self, version: str) -> BundleArtefact:
        return BundleArtefact("register", version, self.folder / version)

    @property
    def champion(self) -> str | None:
        current = self.pointer.current()
        return current and current.champion.number

    def _gates(self, champion: str, challenger: str, *rest: Any) -> list[PromotionGate]:
        self.asked += 1
        verdicts: tuple[Verdict, ...] = ("pass", self.verdict)  # type: ignore[assignment]
        return [
            PromotionGate(name=f"gate {number}", verdict=verdict, reason=f"{challenger} beside {champion}: {verdict}")
            for number, verdict in enumerate(verdicts)
        ]


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    return Published(tmp_path, monkeypatch)


def test_the_first_version_that_saves_something_is_the_champion(published: Published) -> None:
    published.policy = SAVES_NOTHING
    assert published("1")["reason"] == "it escalates everything"
    assert published.champion is None
    published.policy = KEEPS
    assert published("2") == {"version": "2", "champion": "2", "reason": None}
    assert published.asked == 0  # there is nothing to compare it with
    assert published("2")["champion"] == "2"


@pytest.mark.parametrize("verdict", ["fail", "undecided"])
def test_a_later_version_has_to_pass_the_promotion_gates(published: Published, verdict: str) -> None:
    published("1")
    published.verdict = verdict
    published.alias = "7"  # somebody moved it
    held = published("2")
    assert published.alias == "1"
    assert held["reason"] == f"2 beside 1: {verdict}"
    assert (held["champion"], published.champion) == ("1", "1")
    published.verdict = "pass"
    assert published("2")["reason"] is None
    assert published.champion == "2"


def test_a_champion_that_another_followed_is_not_brought_back(published: Published) -> None:
    published("1")
    published("2")
    assert published("1", promote=True)["reason"] == "it was the champion before"
    assert published.champion == "2"


def test_what_a_person_says_counts_more(published: Published) -> None:
    assert published("1", promote=False)["reason"] == "--no-promote"
    assert published.champion is None
    published.policy, published.verdict = SAVES_NOTHING, "fail"
    assert published("1", promote=True)["champion"] == "1"
    assert published("2", promote=True)["champion"] == "2"
    assert published.asked == 0
