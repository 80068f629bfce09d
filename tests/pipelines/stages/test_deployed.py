"""Which collaborator is deployed: the better one on validate rows with `auto`, else the first of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import pytest

from kcm.config import parse_config
from kcm.errors import ConfigError
from pipelines.config import RunConfig
from pipelines.stages.evaluate import Evaluate, chosen
from pipelines.stages.train import Train

RUN = {
    "name": "reviews",
    "tasks": {"source": {"kind": "files", "path": "rows.csv"}},
    "encoder": {"model": "some/model"},
    "large": {"adapter": "zero_shot", "encoder": {"model": "some/model"}},
}


def searched(**reached: Mapping[str, float]) -> SimpleNamespace:
    """A search that left what `reached` says, in its order."""
    plan = SimpleNamespace(config=SimpleNamespace(collaborators=tuple(reached)))
    return SimpleNamespace(plan=plan, objectives=lambda name: reached[name])


def reached(promised: float, calls_saved: float = 0.5, area: float = 0.9) -> dict[str, float]:
    return {"promised": promised, "calls_saved": calls_saved, "area": area}


@pytest.mark.parametrize(
    ("kcm", "mcm", "best", "why"),
    [
        (reached(0.4), reached(0.5), "mcm", "a certificate should leave 50.0% of the inputs to it"),
        (reached(0.5, 0.1), reached(0.4, 0.9), "kcm", "against 40.0% with MCM"),
        (reached(0.4, 0.6), reached(0.4, 0.7), "mcm", "it saves 70.0% of the calls, against 60.0% with KCM"),
        (reached(0.4), reached(0.4), "kcm", "both are worth the same"),
    ],
)
def test_auto_deploys_what_a_certificate_should_leave_most_of(kcm, mcm, best, why) -> None:
    names, reason = chosen(searched(kcm=kcm, mcm=mcm), choose=True)
    assert names[0] == best
    assert set(names) == {"kcm", "mcm"}
    assert why in reason


def test_a_list_deploys_its_first() -> None:
    names, reason = chosen(searched(mcm=reached(0.1), kcm=reached(0.9)), choose=False)
    assert names == ["mcm", "kcm"]
    assert "names it first" in reason


def test_auto_trains_both_and_is_the_default() -> None:
    config = parse_config(RunConfig, RUN)
    assert Train.of(config).collaborators == ("kcm", "mcm")
    assert Evaluate.of(config).choose
    named = parse_config(RunConfig, RUN | {"collaborators": ["mcm", "kcm"]})
    assert Train.of(named).collaborators == ("mcm", "kcm")
    assert not Evaluate.of(named).choose


@pytest.mark.parametrize("value", [[], ["kcm", "kcm"], "best"])
def test_other_values_are_refused(value) -> None:
    with pytest.raises(ConfigError, match="collaborators"):
        parse_config(RunConfig, RUN | {"collaborators": value})
