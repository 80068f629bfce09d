"""Transactions on tables that are made before the first one, in SQLite; the log's tests put them to PostgreSQL, too."""

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, select

from kcm.errors import KcmError
from kcm.sql import IN_MEMORY, SqlDatabase, insert

SCHEMA = MetaData()
NUMBERS = Table("numbers", SCHEMA, Column("number", Integer, primary_key=True))


class Numbers(SqlDatabase):
    """A table of numbers."""

    def create(self, connection):
        SCHEMA.create_all(connection)

    def failure(self, error):
        return KcmError(f"no numbers: {type(error).__name__}")

    def add(self, *numbers):
        with self.writing() as connection:
            connection.execute(insert(connection, NUMBERS), [{"number": number} for number in numbers])

    def all(self):
        with self.reading() as connection:
            return sorted(connection.scalars(select(NUMBERS.c.number)))


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    return IN_MEMORY if request.param == "memory" else f"sqlite:///{tmp_path / 'numbers.db'}"


def test_what_is_there_already_is_passed_over(url):
    database = Numbers(url, 2.0)
    database.add(1, 2)
    database.add(2, 3)
    assert database.all() == [1, 2, 3]


def test_failed_transaction_changes_nothing_and_raises(url):
    database = Numbers(url, 2.0)

    def add_and_fail():
        with database.writing() as connection:
            connection.execute(insert(connection, NUMBERS), [{"number": 1}])
            connection.exec_driver_sql("SELECT * FROM nowhere")

    with pytest.raises(KcmError, match="no numbers: OperationalError"):
        add_and_fail()
    assert database.all() == []


def test_a_reader_holds_up_no_writer_and_sees_one_state(tmp_path):
    class Beside(Numbers):
        wal = True

    database = Beside(f"sqlite:///{tmp_path / 'numbers.db'}", 2.0)
    database.add(1)
    with database.reading() as connection:
        before = connection.scalars(select(NUMBERS.c.number)).all()
        database.add(2)
        assert connection.scalars(select(NUMBERS.c.number)).all() == before == [1]
    assert database.all() == [1, 2]
