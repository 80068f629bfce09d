"""What a replica makes of a bundle and its own configuration."""

from types import SimpleNamespace
from typing import Any

import pytest

from kcm.cascade.policy import OnLargeFailure
from pipelines.serve.cascade.loading import VersionLoader
from pipelines.serve.config import LargeReplicaConfig, ServeConfig
from tests.kcm.bundle.test_bundle import bundle


@pytest.mark.parametrize(("chosen", "expected"), [(None, "answer_small"), ("error", "error")])
def test_the_operators_failure_rule_goes_first(chosen: OnLargeFailure | None, expected: str) -> None:
    """Promise: `serve.large.on_large_failure` replaces the bundle's rule, also where a guard restores the policy."""
    loader: Any = SimpleNamespace(_config=ServeConfig(large=LargeReplicaConfig(on_large_failure=chosen)))
    side = VersionLoader._small_side(loader, bundle(), SimpleNamespace())  # type: ignore[arg-type]
    assert side.policy.on_large_failure == side.bundle.policy.on_large_failure == expected
