"""A real PostgreSQL server, where there is one, for tests of what may be in it or in a file of SQLite."""

import os
import pwd
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

# Where the server is required, its absence is a failure and never a pass; where it is not, its cases do not exist: what
# is not run is not counted.
BACKENDS = ["sqlite", "postgres"] if os.environ.get("KCM_TEST_POSTGRES") == "1" else ["sqlite"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Socket folder of a PostgreSQL server of our own; it refuses to run as root."""
    programs = {name: _program(name) for name in ("initdb", "pg_ctl")}
    if None in programs.values():
        pytest.fail("KCM_TEST_POSTGRES=1, but PostgreSQL is missing: apt-get install postgresql")
    folder = Path("/tmp") / f"kcm-postgres-{os.getpid()}"  # a socket's path must be short
    folder.mkdir()
    runner: list[str] = []
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        runner = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    data, log = folder / "data", folder / "log"

    def call(*command: str) -> None:
        done = subprocess.run([*runner, *command], cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")

    try:
        call(str(programs["initdb"]), "-D", str(data), "-U", "kcm", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        call(str(programs["pg_ctl"]), "-D", str(data), "-l", str(log), "-o", options, "-w", "start")
        yield str(folder)
        call(str(programs["pg_ctl"]), "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> Path | None:
    """On the path, or where Debian keeps what belongs to a version of the server."""
    found = shutil.which(name) or next(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    return Path(found) if found else None


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """The URL of a database of the server in which nothing is yet."""
    name = f"kcm{uuid.uuid4().hex}"
    server = create_engine(f"postgresql+psycopg://kcm@/postgres?host={postgres}", isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    server.dispose()
    return f"postgresql+psycopg://kcm@/{name}?host={postgres}"
