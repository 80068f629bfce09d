"""The networks that can be explained, and what they see of a row."""

from __future__ import annotations

import pytest
import torch

from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.errors import ConfigError, DataError
from kcm.explain.networks import kan_of, network_inputs, remembered_rows
from kcm.learners import ReplayConfig
from kcm.learners.memory import MemoryRow


def test_an_mlp_has_no_curves_to_show() -> None:
    control = Collaborator(6, 3, NetworkConfig(hidden=(4,)), "mlp", seed=0)
    with pytest.raises(ConfigError, match="MLP"):
        kan_of(control.judge)


@pytest.mark.parametrize("mixing", [0, 9])
def test_the_remembered_rows_are_seen_as_the_networks_see_them(mixing: int) -> None:
    collaborator = Collaborator(6, 3, NetworkConfig(hidden=(), mixing=mixing), "kan", seed=0)
    learner, features = ReplayConfig(memory=4).build(seed=0), torch.randn(4, 6)
    learner.remember(MemoryRow(n, str(n), 0, 0, features[n].numpy(), features[n, :3].numpy()) for n in range(4))
    remembered = remembered_rows(learner.state_dict(), collaborator)
    assert remembered is not None
    torch.testing.assert_close(collaborator.judge(remembered), collaborator(features)[0])
    assert remembered_rows({}, collaborator) is None


def test_features_that_are_not_finite_are_refused() -> None:
    collaborator = Collaborator(6, 3, NetworkConfig(hidden=()), "kan", seed=0)
    with pytest.raises(DataError, match="finite"):
        network_inputs(collaborator, torch.full((1, 6), torch.nan))
