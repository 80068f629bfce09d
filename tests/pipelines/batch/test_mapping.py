import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from pipelines.batch.mapping import one_thread, run_remotely


def most_threads() -> int:
    return max(pool["num_threads"] for pool in threadpool_info())


def test_a_table_without_a_cluster_is_computed_on_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: small matrices cost no CPU for threads that wait, and add up as in a worker that has one core."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with threadpool_limits(2):
        assert run_remotely(most_threads) == 1
        with one_thread():
            assert most_threads() == 1
        assert most_threads() == 2
