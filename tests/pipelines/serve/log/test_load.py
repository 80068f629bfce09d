"""What an answer costs PostgreSQL, by its own counts; `pytest -s` prints the figures that docs/cluster.md uses."""

import asyncio
import json
import os
import time
import uuid

import psutil
import pytest
from sqlalchemy import Engine, create_engine, text

from pipelines.serve.config import FeedbackConfig
from pipelines.serve.log.entries import LoggedDecision, Origin
from pipelines.serve.log.writer import LogWriter
from tests.postgres import BACKENDS

SECONDS = int(os.environ.get("KCM_LOG_SECONDS", "4"))
COUNTED_S = 1.5  # after which PostgreSQL has counted a transaction
STATE = text(
    "SELECT xact_commit, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8, pg_database_size(current_database())"
    " FROM pg_stat_database WHERE datname = current_database()"
)
CONNECTIONS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
)

pytestmark = pytest.mark.skipif("postgres" not in BACKENDS, reason="needs PostgreSQL: KCM_TEST_POSTGRES=1")


def decision() -> LoggedDecision:
    return LoggedDecision(
        Origin(uuid.uuid4().hex),
        item=0,
        model_version="reviews/3",
        route="small",
        audit_share=0.05,
        small_label="positive",
        gate_score=0.9,
        task="films",
        unit=os.urandom(16),
        large_identity="0" * 64,
    )


def state(server: Engine) -> list[float]:
    """Transactions, bytes of the write-ahead log, bytes of the database, and CPU seconds of the server's processes."""
    with server.connect() as connection:
        counts = connection.execute(STATE).one()
    times = [process.cpu_times() for process in psutil.process_iter() if process.name() == "postgres"]
    return [*counts, sum(each.user + each.system for each in times)]


@pytest.mark.parametrize(("doors", "per_second"), [(1, 10), (1, 50), (20, 5), (20, 50)])
async def test_door_needs_one_connection_and_few_transactions(postgres_url: str, doors: int, per_second: int) -> None:
    """Promise: a door needs one connection and at most one and a half transactions for an answer."""
    server = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    writers = [LogWriter(FeedbackConfig(url=postgres_url, timeout_s=30), postgres_url) for _ in range(doors)]
    for writer in writers:
        await writer.open()
    await asyncio.sleep(COUNTED_S)
    before, until, answers = state(server), time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        for writer in writers:
            writer.add_decisions([decision()])
        answers += doors
        await asyncio.sleep(1 / per_second)
    for writer in writers:
        await writer.flush()
    await asyncio.sleep(COUNTED_S)
    after = state(server)
    with server.connect() as connection:
        connections = connection.scalar(CONNECTIONS) - 1
    for writer in writers:
        await asyncio.to_thread(writer.close)
    server.dispose()
    names = "transactions", "wal_bytes", "bytes", "cpu_s"
    costs = {name: (now - then) / answers for name, now, then in zip(names, after, before, strict=True)}
    print(json.dumps({"doors": doors, "per_second": per_second, "connections": connections, "of an answer": costs}))
    assert connections == doors
    assert costs["transactions"] <= 1.5
