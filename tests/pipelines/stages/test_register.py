"""A version becomes the champion by itself only if it saves something."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from kcm.cascade.policy import ESCALATE_ALL, Decision, Policy
from pipelines.stages import register
from pipelines.stages.register import BundleArtefact

KEEPS, SAVES_NOTHING = Policy(decision=Decision(decision="threshold", threshold=0.5)), Policy(decision=ESCALATE_ALL)


@pytest.mark.parametrize(
    ("policy", "promote", "reason"),
    [
        (KEEPS, None, None),
        (KEEPS, False, "--no-promote"),
        (SAVES_NOTHING, None, "it escalates everything; `kcm run --promote` insists"),
        (SAVES_NOTHING, True, None),
    ],
)
def test_what_saves_nothing_is_registered_and_no_more(
    policy: Policy, promote: bool | None, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = SimpleNamespace(policy=policy, certificates={})
    monkeypatch.setattr(register, "Bundle", SimpleNamespace(read=lambda _: bundle))
    assert register.held_back(BundleArtefact("register", "f", Path("/f")), promote) == reason
