"""What an answer costs PostgreSQL, by its own counts."""

import asyncio
import time

import pytest
from sqlalchemy import create_engine, text

from pipelines.serve.config import FeedbackConfig
from pipelines.serve.log.entries import LoggedDecision, Origin
from pipelines.serve.log.writer import LogWriter
from tests.postgres import BACKENDS

COUNTED_S = 1.5  # after which PostgreSQL has counted a transaction
COMMITTED = text("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
CONNECTIONS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
)

pytestmark = pytest.mark.skipif("postgres" not in BACKENDS, reason="needs PostgreSQL: KCM_TEST_POSTGRES=1")


@pytest.mark.parametrize(("doors", "per_second"), [(1, 10), (1, 50), (20, 5), (20, 50)])
async def test_door_needs_one_connection_and_few_transactions(postgres_url: str, doors: int, per_second: int) -> None:
    """Promise: a door needs one connection and at most one and a half transactions for an answer."""
    server = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    writers = [LogWriter(FeedbackConfig(url=postgres_url, timeout_s=30), postgres_url) for _ in range(doors)]
    for writer in writers:
        await writer.open()
    with server.connect() as connection:
        await asyncio.sleep(COUNTED_S)
        before, until, answers = connection.scalar(COMMITTED), time.monotonic() + 4, 0
        while time.monotonic() < until:
            for number, writer in enumerate(writers):
                writer.add_decisions([LoggedDecision(Origin(f"{answers} {number}"), 0, "reviews/3", "small")])
            answers += doors
            await asyncio.sleep(1 / per_second)
        for writer in writers:
            await writer.flush()
        await asyncio.sleep(COUNTED_S)
        assert connection.scalar(CONNECTIONS) - 1 == doors
        assert connection.scalar(COMMITTED) - before <= 1.5 * answers
    for writer in writers:
        await asyncio.to_thread(writer.close)
    server.dispose()
