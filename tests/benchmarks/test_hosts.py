"""Hosts made of namespaces end as a whole."""

import pytest

from benchmarks.hosts import lan, why_no_hosts

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True, scope="module")
def hosts() -> None:
    if reason := why_no_hosts():
        pytest.skip(reason)


def test_host_ends_after_a_stopped_program() -> None:
    """Promise: a host ends though a program on it was stopped for a while."""
    with lan() as net:
        host = net.host("store")
        host.start(["tail", "-f", "/dev/null"], "tail.log")
        host.run("bash", "-c", "until pkill -STOP -x tail; do sleep .1; done")
        host.run("bash", "-c", "until grep -q '(tail) T' /proc/$(pgrep -x tail)/stat; do sleep .1; done")
        host.run("pkill", "-CONT", "-x", "tail")
    assert host.init.returncode is not None
