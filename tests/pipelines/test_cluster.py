"""The number of train workers is a count or a pair; anything else is refused in one line before any work starts."""

from __future__ import annotations

import pytest

from kcm.config import parse_config
from kcm.errors import ConfigError
from pipelines.cluster import ClusterConfig


@pytest.mark.parametrize(("given", "taken"), [(3, 3), ([1, 4], (1, 4)), ([2, 2], (2, 2))])
def test_workers_are_a_count_or_a_pair(given, taken) -> None:
    assert parse_config(ClusterConfig, {"num_workers": given}).num_workers == taken


@pytest.mark.parametrize("given", [0, [4, 1], [0, 2], [1, 2, 3], [1.5, 2], "two", True, None])
def test_other_numbers_of_workers_are_refused_with_what_is_allowed(given) -> None:
    with pytest.raises(ConfigError, match=r"num_workers = .* a count from 1, or a pair such as \[1, 4\]"):
        parse_config(ClusterConfig, {"num_workers": given})
