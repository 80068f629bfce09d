"""The networks that can be explained, and what they see of a row."""

from typing import Any

import pytest
import torch

from kcm.bundle.bundle import Bundle
from kcm.collaborator.collaborator import Collaborator, NetworkConfig, NetworkKind
from kcm.errors import ConfigError
from kcm.explain.networks import known_rows, networks_with_curves, with_curves
from kcm.learners import Batch
from kcm.learners.replay import ReplayConfig
from tests.kcm.bundle.test_bundle import bundle as any_bundle


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        ("mlp", {"hidden": (4,)}),
        ("linear", {"hidden": ()}),
        ("kan", {"hidden": (), "basis": "relu", "mixing": 9}),
        ("random_relu", {"hidden": (), "basis": "quadratic", "mixing": 9}),
        ("random_relu", {"hidden": (), "basis": "pspline", "mixing": 9}),
    ],
)
def test_mlps_and_random_relus_have_no_curves_to_show(kind: NetworkKind, network: dict[str, Any]) -> None:
    control = Collaborator(6, 3, NetworkConfig(**network), kind, seed=0)
    assert networks_with_curves(control) == {}
    with pytest.raises(ConfigError, match=r"MLP|RandomReLU"):
        with_curves(control.judge)


def bundle(collaborator: Collaborator, state: dict[str, Any], certify_rows: torch.Tensor | None = None) -> Bundle:
    return any_bundle(collaborator=collaborator, learner_state=state, certify_rows=certify_rows)


@pytest.mark.parametrize(
    "network",
    [{}, {"mixing": 9}, {"mixing": 9, "basis": "pspline"}, {"mixing": 9, "basis": "quadratic"}],
    ids=["splines", "mixed", "pspline", "quadratic"],
)
def test_the_rows_of_a_bundle_are_seen_as_the_networks_see_them(network: dict[str, Any]) -> None:
    """Those in the memory, or of a learner without one a sample of the certify rows."""
    collaborator = Collaborator(6, 3, NetworkConfig(hidden=(), **network), "kan", seed=0)
    learner, features = ReplayConfig(memory=4).build(seed=0), torch.randn(4, 6)
    learner.remember(
        list("abcd"), Batch(features, torch.zeros(4, dtype=torch.int64), features[:, :3], torch.ones(4)), 0
    )
    certified = torch.randn(200, 6)
    remembered = known_rows(bundle(collaborator, learner.state_dict(), certified))
    assert remembered is not None
    torch.testing.assert_close(collaborator.judge(remembered), collaborator(learner.memory.rows.features)[0])
    sampled = known_rows(bundle(collaborator, {}, certified))
    assert sampled is not None
    torch.testing.assert_close(collaborator.judge(sampled), collaborator(certified)[0])
    assert known_rows(bundle(collaborator, {})) is None
